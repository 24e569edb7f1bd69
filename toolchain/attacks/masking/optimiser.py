"""Checks of the white-box attack itself: whether it had a gradient, used it up, and attacked what the device computes.

`n` is the number of images that are right without an attack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .comparisons import WHITE_BOX
from .finding import Finding, counted, decided, images_needed, percent, too_few

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .evidence import Evidence, Gradients, ProbeRun

__all__ = [
    "VANISHED",
    "earlier_iterate_is_better",
    "gradients_vanish",
    "loss_not_converged",
    "outputs_are_probabilities",
    "randomness",
]

VANISHED = 0.99
"""A gradient with at least this share of zero entries says next to nothing of where to go."""

_ATHALYE = "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420)"
_CARLINI = "Carlini et al. 2019 (arXiv:1902.06705)"
_PINTOR = "Pintor et al. 2022 (arXiv:2106.09947)"


def gradients_vanish(evidence: Evidence) -> Finding:
    """Images stand where the attack ended without a gradient: all zero (or 99 % of it), NaN or infinite.

    A gradient that vanishes at images that fall all the same hides nothing, and neither does a robust image whose
    gradient can be used; so only images that withstand the white box, and at which its gradient has vanished, count.
    Effect: such images / n.

    Source: Athalye, Carlini, Wagner 2018, section 2 (shattered, and vanishing or exploding gradients); Carlini and
    Wagner 2016 (arXiv:1607.04311) on gradients that are zero in floating point; Pintor et al. 2022, "Indicators of
    attack failure", on unavailable gradients.
    """
    name, source = "gradients vanish", f"{_ATHALYE}; Carlini and Wagner 2016 (arXiv:1607.04311); {_PINTOR}"
    of = evidence.count
    if not evidence.gradients:
        return too_few(name, source, "no gradient was looked at")
    end = evidence.gradients[-1]
    left = evidence.left_by(*WHITE_BOX)
    blind = counted(left & end.seen & _vanished(end))
    text = f"of {of}, {counted(left)} withstand the white box, without a gradient {end.where} {percent(blind, of)}"
    text += "".join(f"; {_described(gradients)}" for gradients in evidence.gradients)
    return Finding(name, decided(blind, of), blind / of if of else None, images_needed(), text, source)


def loss_not_converged(evidence: Evidence) -> Finding:
    """Images stand whose margin was still falling when the iterative attack ended.

    Of the least margin so far after three quarters of the iterates, `m(3/4)`, and after all of them, `m(1) >= 0`: had
    another quarter brought what the last one did, `m(1) <= m(3/4) - m(1)`, the image would have fallen. Effect: such
    images / n. Suspicious at most: the attack needs more or longer steps.

    Source: Carlini et al. 2019, "On evaluating adversarial robustness", on attacks that have converged; Pintor et al.
    2022, "Indicators of attack failure", on incomplete optimisation.
    """
    name, source, of = "loss not converged", f"{_CARLINI}; {_PINTOR}", evidence.count
    recorded = [(run, run.margins) for run in evidence.having("iterative") if run.margins is not None]
    if not recorded:
        return too_few(name, source, "no iterative attack recorded its margins")
    run, margins = recorded[0]
    best = np.minimum.accumulate(margins, axis=0)
    quarter, end = best[3 * (len(best) - 1) // 4], best[-1]
    with np.errstate(invalid="ignore"):
        fall = quarter - end
        falling = run.standing & (fall > 0) & (end <= fall)
    found = counted(falling)
    text = (
        f"{_settings(run)} leaves {counted(run.standing)} of {of}; another quarter of its steps would turn, if they "
        f"lowered the margin as the last quarter did, {percent(found, of)}"
    )
    outcome = decided(found, of, worst="suspicious")
    return Finding(name, outcome, found / of if of else None, images_needed(), text, source)


def earlier_iterate_is_better(evidence: Evidence) -> Finding:
    """An earlier iterate succeeds and the last one does not: the attack steps over what it has found.

    What earlier iterates find counts here (`AttackResult.kept_earlier`), so the figure itself is right; but an attack
    that loses what it has found is not one to trust. Effect: such images / n. Suspicious at most.

    Source: Pintor et al. 2022, "Indicators of attack failure", on silent success.
    """
    name, source, of = "earlier iterate better than last", _PINTOR, evidence.count
    runs = evidence.having("iterative")
    if not runs:
        return too_few(name, source, "no iterative attack was run")
    kept = counted(runs[0].kept_earlier & runs[0].attacked)
    text = f"{_settings(runs[0])}: an earlier iterate succeeds and the last one fails for {percent(kept, of)}"
    outcome = decided(kept, of, worst="suspicious")
    return Finding(name, outcome, kept / of if of else None, images_needed(), text, source)


def randomness(evidence: Evidence) -> Finding:
    """The same images get another answer when asked about again, or in another order.

    A device of exact integers gives the same bits, always; the read noise of a profile is that of its seed and of an
    image's place, and repeats with them. Anything else is a random figure, and gradients of a random model are those of
    another draw than the one that judges. Effect: images whose answer changed / all images. Suspicious from one image
    on: an attack has to average over the randomness (and the figure too) before either can be trusted.

    Source: Athalye, Carlini, Wagner 2018, section 2 (stochastic gradients) and 4.2 (expectation over transformation).
    """
    name, source = "randomness", f"{_ATHALYE}, sections 2 and 4.2"
    repeats = evidence.repeats
    if repeats is None:
        return too_few(name, source, "nothing was asked twice")
    changed = repeats.judge | repeats.source
    order = "differ from image to image by their place, as the read noise of a profile may"
    if repeats.noise_seed is None:
        changed = changed | repeats.order
        order = f"{counted(repeats.order)} in another order"
    of = len(changed)
    text = (
        f"asked {repeats.asked} times about {of} images: answers of the judge change for {counted(repeats.judge)}, "
        f"{order}; logits of the gradient source for {counted(repeats.source)}"
    )
    if repeats.noise_seed is not None:
        text += f"; read noise of seed {repeats.noise_seed}"
    return Finding(name, "suspicious" if changed.any() else "clear", counted(changed) / of, 1, text, source)


def outputs_are_probabilities(evidence: Evidence) -> Finding:
    """What the gradient source calls logits are probabilities: none is below 0, and their sum is 1.

    The cross-entropy takes another softmax of them, which flattens the loss, and their own softmax has already rounded
    what an attack would follow. Effect: such images / all images. Suspicious where all of them are such.

    Source: Carlini and Wagner 2017, "Towards evaluating the robustness of neural networks" (arXiv:1608.04644), which
    attacks logits for this reason; Carlini et al. 2019, "On evaluating adversarial robustness".
    """
    name, source = "logits are probabilities", f"Carlini and Wagner 2017 (arXiv:1608.04644); {_CARLINI}"
    if evidence.probabilities is None:
        return too_few(name, source, "no gradient source was looked at")
    found, of = counted(evidence.probabilities), len(evidence.probabilities)
    text = f"outputs are not below 0 and add up to 1 for {found} of {of} images"
    return Finding(name, "suspicious" if found == of else "clear", found / of, 1, text, source)


def _vanished(gradients: Gradients) -> NDArray[np.bool_]:
    return np.asarray(~gradients.finite | (gradients.zero >= VANISHED))


def _described(gradients: Gradients) -> str:
    seen = gradients.seen
    if not seen.any():
        return f"none looked at {gradients.where}"
    return (
        f"{gradients.where}, of {counted(seen)}: all zero {counted(seen & (gradients.zero == 1))}, NaN or infinite "
        f"{counted(seen & ~gradients.finite)}, median share of zero entries {np.median(gradients.zero[seen]):.0%}"
    )


def _settings(run: ProbeRun) -> str:
    steps = run.settings.get("steps")
    return run.name if steps is None else f"{run.name} with {steps} steps"
