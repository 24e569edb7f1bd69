"""Claims that weights decide, and those of Eq. 1, mapped blocks and training with both methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .claim import FAILS, HOLDS, Figure, Finding, NotMeasured, enough, everywhere
from .extras import (
    ADVERSARIAL_QAT,
    ALONE,
    ALONE_FLOAT,
    ATTACKED,
    CLEAN,
    FIRST_BLOCK,
    LAST_BLOCK,
    UNMAPPED,
)
from .results import command_of
from .twelve import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .claim import Rule
    from .norms import LayerNorms, NormRecord
    from .records import Cell
    from .results import Results

__all__ = ["WEIGHT_CLAIMS"]

_POINTS = "points"
_PERCENT = "%"
_ORIG, _ADV, _FL = FAMILIES


def adv_largest_norm(rule: Rule, results: Results) -> Finding:
    """Adv.'s constants against the other two models', at the last layers that the rule names, or at all."""
    norms = results.needed_norms()
    wanted = slice(-int(rule.number("layers")), None) if "layers" in rule.numbers else slice(None)
    last = {family: norms.models[family][wanted] for family in FAMILIES if family in norms.models}
    figures = tuple(
        Figure(f"{family}, {one.layer}", one.norms.spectral)
        for family, layers in last.items()
        for one in layers
    )
    if _ADV not in last:
        raise NotMeasured(_missing(norms, _ADV))
    broken = []
    for family in (_ORIG, _FL):
        for one, other in zip(last[_ADV], last.get(family, ()), strict=family in last):
            if one.norms.spectral <= other.norms.spectral:
                pair = f"{one.norms.spectral:.3f}, {family} {other.norms.spectral:.3f}"
                broken.append(f"in {one.layer} Adv. has {pair}")
    missing = [_missing(norms, family) for family in FAMILIES if family not in last]
    return everywhere(broken, missing, f"so in {rule.numbers['where']}", figures)


def last_layers_amplify(rule: Rule, results: Results) -> Finding:
    """The layer with the largest constant of each model, and whether it is among the last ones."""
    norms = results.needed_norms()
    wanted = int(rule.number("layers"))
    figures, broken, seen = [], [], []
    for family in FAMILIES:
        layers = norms.models.get(family)
        if layers is None:
            continue
        largest = max(layers, key=lambda one: one.norms.spectral)
        figures += [
            Figure(f"{family}, largest: {largest.layer}", largest.norms.spectral),
            Figure(f"{family}, last: {layers[-1].layer}", layers[-1].norms.spectral),
        ]
        seen.append(f"{family}: {largest.layer}")
        if largest not in layers[-wanted:]:
            broken.append(f"in {family} {largest.layer} amplifies most")
    missing = [_missing(norms, family) for family in FAMILIES if family not in norms.models]
    return everywhere(broken, missing, f"the largest are {', '.join(seen)}", tuple(figures))


def mu_hardly_moves_norms(rule: Rule, results: Results) -> Finding:
    """The change of the last layer's constant by the map, in percent; of Adv. it is shown and not judged."""
    norms = results.needed_norms()
    figures, broken, missing, seen = [], [], [], []
    for family in FAMILIES:
        mapped = f"{family}+mu"
        absent = [name for name in (family, mapped) if name not in norms.models]
        if absent:
            missing += [_missing(norms, name) for name in absent] if family != _ADV else []
            continue
        before, after = (norms.models[name][-1] for name in (family, mapped))
        change = _change(before, after)
        figures.append(Figure(f"{family}, change in {before.layer}", change, None, _PERCENT))
        if family == _ADV:
            continue
        seen.append(f"{family} {change:+.1f} %")
        if abs(change) > rule.number("percent"):
            values = f"from {before.norms.spectral:.3f} to {after.norms.spectral:.3f}"
            broken.append(f"{family} changes by {change:+.1f} %, {values}")
    return everywhere(broken, missing, ", ".join(seen), tuple(figures))


def third_term(rule: Rule, results: Results) -> Finding:
    """The length of dW dx at every layer, as a share of the other two terms'."""
    extras, share = results.extras, rule.number("share")
    figures, broken, worst = [], [], 0.0
    for family, layers in extras.terms.items():
        for one in layers:
            figures += [
                Figure(f"{family}, {one.layer}: cross / quantisation", one.of_quantisation),
                Figure(f"{family}, {one.layer}: cross / attack", one.of_attack),
            ]
        largest = max(layers, key=lambda one: max(one.of_quantisation, one.of_attack))
        most = max(largest.of_quantisation, largest.of_attack)
        worst = max(worst, most)
        if most > share:
            broken.append(f"in {family} it reaches {most:.2f} of the smaller one ({largest.layer})")
    missing = [extras.reason(family) for family in FAMILIES if family not in extras.terms]
    return everywhere(
        broken, missing, f"at most {worst:.3f} of the smaller one", tuple(figures), extras.terms_of
    )


def early_block(rule: Rule, results: Results) -> Finding:
    """What the map of the first block costs."""
    drop, figures = _block_drop(rule, results, FIRST_BLOCK)
    verdict = HOLDS if drop >= rule.number("drop") else FAILS
    return Finding(verdict, f"accuracy changes by {-drop:+.2f} points", figures, results.extras.images)


def last_block(rule: Rule, results: Results) -> Finding:
    """What the map of the last block costs."""
    drop, figures = _block_drop(rule, results, LAST_BLOCK)
    verdict = HOLDS if drop <= rule.number("drop") else FAILS
    return Finding(verdict, f"accuracy changes by {-drop:+.2f} points", figures, results.extras.images)


def adv_qat_worse(rule: Rule, results: Results) -> Finding:
    """Adversarial training through rounded weights against adversarial training, both rounded to 3 bits."""
    trainings = results.extras.trainings
    absent = [name for name in (ADVERSARIAL_QAT, ALONE) if name not in trainings]
    if absent:
        raise NotMeasured("; ".join(results.extras.reason(name) for name in absent))
    enough(rule, trainings[ALONE][CLEAN].images, command_of("claims"))
    figures = tuple(
        Figure(f"{name}, {words}", value, None, _PERCENT)
        for name in trainings
        for words, value in (
            ("clean", trainings[name][CLEAN].percent),
            ("PGD", trainings[name][ATTACKED].percent),
            ("mean", _mean(trainings[name])),
        )
    )
    both, alone = (_mean(trainings[name]) for name in (ADVERSARIAL_QAT, ALONE))
    words = f"with both {both:.2f} %, alone {alone:.2f} %"
    if ALONE_FLOAT in trainings:
        words += f" (alone and in float {_mean(trainings[ALONE_FLOAT]):.2f} %)"
    return Finding(HOLDS if both < alone else FAILS, words, figures, results.extras.images)


WEIGHT_CLAIMS: dict[str, Callable[[Rule, Results], Finding]] = {
    "adv-largest-norm": adv_largest_norm,
    "last-layers-amplify": last_layers_amplify,
    "last-layer-amplifies": last_layers_amplify,
    "mu-hardly-moves-norms": mu_hardly_moves_norms,
    "third-term": third_term,
    "early-block": early_block,
    "last-block": last_block,
    "adv-qat-worse": adv_qat_worse,
}
"""By the name of the claim."""


def _missing(norms: NormRecord, name: str) -> str:
    return norms.missing.get(name, f"figure {norms.number} has no {name}")


def _change(before: LayerNorms, after: LayerNorms) -> float:
    """In percent; an error of 0 that becomes one grows without bound."""
    if before.norms.spectral > 0:
        return 100 * (after.norms.spectral / before.norms.spectral - 1)
    return 0.0 if after.norms.spectral == 0 else float("inf")


def _block_drop(rule: Rule, results: Results, name: str) -> tuple[float, tuple[Figure, ...]]:
    """How many points of clean accuracy the map of a block costs, and the figures."""
    blocks = results.extras.blocks
    absent = [one for one in (UNMAPPED, name) if one not in blocks]
    if absent:
        reasons = [results.extras.reason(one if blocks else UNMAPPED) for one in absent]
        raise NotMeasured("; ".join(dict.fromkeys(reasons)))
    enough(rule, blocks[UNMAPPED].images, command_of("claims"))
    drop = blocks[UNMAPPED].percent - blocks[name].percent
    figures = (
        Figure("Orig., clean", blocks[UNMAPPED].percent, None, _PERCENT),
        Figure(f"Orig., {name}", blocks[name].percent, None, _PERCENT),
        Figure("loss", drop, None, _POINTS),
    )
    return drop, figures


def _mean(cells: Mapping[str, Cell]) -> float:
    return (cells[CLEAN].percent + cells[ATTACKED].percent) / 2
