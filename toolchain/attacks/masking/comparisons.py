"""Checks that hold one attack against another: a weaker one must not find what a stronger one misses.

`n` is the number of images that are right without an attack; *white box* means the attacks on the cross-entropy along
the model's own gradient (single step, iterative, twice the steps, other starts, another descent), all together, image
by image.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from .finding import (
    LEVEL,
    TOLERATED,
    Finding,
    Outcome,
    counted,
    decided,
    images_needed,
    mcnemar,
    percent,
    too_few,
)

if TYPE_CHECKING:
    from .evidence import Evidence, ProbeRun, Role

__all__ = [
    "WHITE_BOX",
    "adaptive_beats_white_box",
    "black_box_beats_white_box",
    "more_effort_gains",
    "noise_beats_gradient",
    "not_monotone_in_radius",
    "parent_beats_white_box",
    "single_step_beats_iterative",
    "unbounded_attack_fails",
]

WHITE_BOX: tuple[Role, ...] = ("single-step", "iterative", "doubled-steps", "restart", "other-descent")

_ATHALYE = "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420), section 3.1"
_CARLINI = "Carlini et al. 2019 (arXiv:1902.06705)"


def single_step_beats_iterative(evidence: Evidence) -> Finding:
    """One step along the gradient finds what many steps miss.

    Many steps can do all that one can. Effect: images that fall to the single step alone / n. Masked where McNemar's
    test says that the single step is the better attack, by `TOLERATED` of the images at least; suspicious where it is
    not, but finds so many of its own.

    Source: Athalye, Carlini, Wagner 2018, "Obfuscated gradients give a false sense of security", section 3.1: one-step
    attacks perform better than iterative attacks.
    """
    return _weaker_beats(evidence, "single step beats iterative", "single-step", _ATHALYE)


def noise_beats_gradient(evidence: Evidence) -> Finding:
    """Random images of the ball are misclassified where the gradient finds nothing.

    Effect: images that fall to noise, whatever the draw, and not to the iterative attack / n. Outcome as for the single
    step.

    Source: Athalye, Carlini, Wagner 2018, section 3.1: random sampling finds adversarial examples.
    """
    return _weaker_beats(evidence, "noise beats gradient", "noise", _ATHALYE)


def black_box_beats_white_box(evidence: Evidence) -> Finding:
    """Queries, or a substitute's gradient, find what the model's own gradient misses.

    Who sees the model can do all that others can. Effect: images that withstand the white box and fall to a black box
    / n. Counted image by image, so that it is also an upper bound of what the black box is better by on the whole.

    Source: Athalye, Carlini, Wagner 2018, section 3.1: black-box attacks are better than white-box attacks; and Carlini
    et al. 2019, "On evaluating adversarial robustness", which asks for an attack without gradients for this reason.
    """
    return _gain(evidence, "black box beats white box", ("black-box",), f"{_ATHALYE}; {_CARLINI}")


def adaptive_beats_white_box(evidence: Evidence) -> Finding:
    """The margin, or logits divided by a temperature, finds what the cross-entropy misses.

    Multiplying the logits changes no decision and only the scale of the margin; but the softmax saturates, and the
    gradient of the cross-entropy underflows. Effect: images that withstand the white box and fall to the same descent
    on another loss / n.

    Source: Carlini and Wagner 2016, "Defensive distillation is not robust to adversarial examples" (arXiv:1607.04311),
    which divides the logits before the softmax; Croce and Hein 2020 (arXiv:2003.01690) on the cross-entropy's
    dependence on scale; Gupta and Ajanthan 2022 (arXiv:2003.13511) on quantised networks; Tramèr et al. 2020 (arXiv:
    2002.08347) on attacks adapted to the model.
    """
    return _gain(
        evidence,
        "margin or scaled logits beat cross-entropy",
        ("adaptive",),
        "Carlini and Wagner 2016 (arXiv:1607.04311); Croce and Hein 2020 (arXiv:2003.01690); "
        "Gupta and Ajanthan 2022 (arXiv:2003.13511); Tramèr et al. 2020 (arXiv:2002.08347)",
    )


def parent_beats_white_box(evidence: Evidence) -> Finding:
    """The gradient of the model that the artifact was made from finds what the artifact's own misses.

    Quantisation moves the decision boundary little; where the float parent's adversarial images (or those of the
    artifact without its mu-law map) still fool the artifact, it is the artifact's gradient that fails. Effect: images
    that withstand the white box and fall to the parent's / n.

    Source: Athalye, Carlini, Wagner 2018, section 4.1 (shattered gradients: attack through a differentiable
    approximation of the defence), and section 3.1 on transfer.
    """
    return _gain(
        evidence,
        "parent's transfer beats white box",
        ("parent",),
        "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420), sections 3.1 and 4.1",
    )


def more_effort_gains(evidence: Evidence) -> Finding:
    """Twice the steps, or other starts, still find more: the attack was too weak to trust what it left.

    Effect: images that withstand the iterative attack and fall to one of these / n. Suspicious at most: a stronger
    attack is called for, which need not find a masked gradient.

    Source: Carlini et al. 2019, "On evaluating adversarial robustness", on attacks that have converged (more iterations
    must not help) and on random restarts.
    """
    name = "more steps or restarts gain"
    return _gain(
        evidence, name, ("doubled-steps", "restart"), _CARLINI, over=("iterative",), worst="suspicious"
    )


def not_monotone_in_radius(evidence: Evidence) -> Finding:
    """An image falls at one radius and stands at a larger one, though the larger ball holds the smaller.

    Effect: such images / n, for the worst pair of neighbouring radii. Masked where McNemar's test says that more stand
    at the larger radius, by `TOLERATED` of the images at least; suspicious where as many stand, but not the same.

    Source: Athalye, Carlini, Wagner 2018, section 3.1: increasing the distortion bound does not increase success; and
    Carlini et al. 2019, on accuracy against perturbation budget.
    """
    name, source, of = "success not monotone in radius", f"{_ATHALYE}; {_CARLINI}", evidence.count
    ladder = sorted(evidence.having("iterative", "ladder", "unbounded"), key=lambda run: run.radius)
    if len(ladder) < 2:
        return too_few(name, source, "attacked at fewer than two radii")
    if of < images_needed():
        return too_few(name, source, _few(evidence))
    pairs = [
        (counted(near.fallen & far.standing), counted(near.standing & far.fallen), near, far)
        for near, far in pairwise(ladder)
    ]
    found, other, near, far = max(pairs, key=lambda pair: (pair[0], pair[0] - pair[1]))
    outcome = max((_ordered(a, b, of) for a, b, _, _ in pairs), key=_SEVERITY.index)
    accuracies = ", ".join(f"{counted(run.standing)} at {run.radius:g}" for run in ladder)
    text = (
        f"standing of {of} at radius in codes: {accuracies}; fallen at {near.radius:g} and standing at {far.radius:g}: "
        f"{percent(found, of)}, the other way round {other}"
    )
    return Finding(name, outcome, found / of, images_needed(), text, source)


def unbounded_attack_fails(evidence: Evidence) -> Finding:
    """An attack that may change every pixel to anything does not reach every image.

    Any image of another class is within reach. Effect: images that still stand / n.

    Source: Athalye, Carlini, Wagner 2018, section 3.1: unbounded attacks do not reach 100 % success.
    """
    name, source, of = "unbounded attack below 100 %", _ATHALYE, evidence.count
    if not evidence.having("unbounded"):
        return too_few(name, source, _missing(evidence, "unbounded"))
    left = counted(evidence.left_by("unbounded"))
    text = f"{_named(evidence.having('unbounded'))} leaves {percent(left, of)}"
    return Finding(name, decided(left, of), left / of if of else None, images_needed(), text, source)


_SEVERITY: tuple[Outcome, ...] = ("not enough data", "clear", "suspicious", "masked")


def _weaker_beats(evidence: Evidence, name: str, role: Role, source: str) -> Finding:
    """Whether an attack that ought to be weaker than the iterative one is the better one."""
    for needed in (role, "iterative"):
        if not evidence.having(needed):
            return too_few(name, source, _missing(evidence, needed))
    of = evidence.count
    weaker, stronger = evidence.left_by(role), evidence.left_by("iterative")
    alone, other = counted(stronger & ~weaker), counted(weaker & ~stronger)
    text = (
        f"{_named(evidence.having(role))} leaves {counted(weaker)} and {_named(evidence.having('iterative'))} "
        f"{counted(stronger)} of {of}; to the former alone fall {percent(alone, of)}, to the latter alone {other} "
        f"(McNemar p = {mcnemar(alone, other):.2g})"
    )
    return Finding(
        name, _ordered(alone, other, of), alone / of if of else None, images_needed(), text, source
    )


def _ordered(weaker_alone: int, stronger_alone: int, of: int) -> Outcome:
    if of < images_needed():
        return "not enough data"
    better = weaker_alone - stronger_alone >= TOLERATED * of and weaker_alone > 0
    if better and mcnemar(weaker_alone, stronger_alone) <= LEVEL:
        return "masked"
    return decided(weaker_alone, of, worst="suspicious")


def _gain(
    evidence: Evidence,
    name: str,
    roles: tuple[Role, ...],
    source: str,
    *,
    over: tuple[Role, ...] = WHITE_BOX,
    worst: Outcome = "masked",
) -> Finding:
    """How many images fall to some roles alone, of those that withstand `over`."""
    for needed, found in ((roles[0], evidence.having(*roles)), ("iterative", evidence.having("iterative"))):
        if not found:
            return too_few(name, source, _missing(evidence, needed))
    of = evidence.count
    before = evidence.left_by(*over)
    after = before & evidence.left_by(*roles)
    gained = counted(before & ~after)
    each = ", ".join(f"{run.name} {counted(run.fallen & before)}" for run in evidence.having(*roles))
    text = (
        f"of {of}, {counted(before)} withstand {_named(evidence.having(*over))}; to these alone fall "
        f"{percent(gained, of)}: {each}"
    )
    return Finding(
        name, decided(gained, of, worst=worst), gained / of if of else None, images_needed(), text, source
    )


def _named(runs: tuple[ProbeRun, ...]) -> str:
    """Names of attacks, each once, with how often it ran."""
    counts: dict[str, int] = {}
    for run in runs:
        counts[run.name] = counts.get(run.name, 0) + 1
    return ", ".join(name if times == 1 else f"{name} ({times} times)" for name, times in counts.items())


def _missing(evidence: Evidence, role: str) -> str:
    """Says that no attack of a role was run, and why where that is known."""
    reasons = "; ".join(
        f"{what.removeprefix(f'{role} ')}: {why}"
        for what, why in evidence.skipped.items()
        if what.startswith(f"{role} ")
    )
    return f"no {role} attack was run" + (f" ({reasons})" if reasons else "")


def _few(evidence: Evidence) -> str:
    return f"{evidence.count} images are right without an attack; expected at least {images_needed()}"
