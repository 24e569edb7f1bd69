"""Which attack stands for a column of the paper's tables, and how strong it is; the data is `strengths.toml`.

The paper prints none. The rule: the first of a column's strengths is the suite's own; where it brings the Orig. and
the Adv. row near enough to the paper's, it is kept; otherwise the strength that comes nearest is taken. No other row
has a say, and all rows get the same strength.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..attacks.epsilon import PIXEL_HIGH, parse_epsilon
from ..attacks.suite import Entry, load_suite
from .printed import read_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .printed import Attacker, DataName, PaperTable

__all__ = ["QUICK_CW", "Strength", "Strengths", "choose", "cw_of_suite", "load_strengths"]

QUICK_CW = (2, 60)
"""What `--quick` makes of the constants and the steps of CW-L2, which costs most; the output says so."""

_STEP = "step_codes"
_SECTIONS = {"white box": "white-box", "black box": "black-box"}
_CW = "cw-l2"


@dataclass(frozen=True)
class Strength:
    """An attack for a column.

    Attributes:
        column: The column's heading.
        entry: The attack, its epsilon and settings.
        within: For attacks of least distance: the L2 radius, in units of the pixel range, within which an adversarial
            image counts; None for the others.
    """

    column: str
    entry: Entry
    within: float | None = None

    @property
    def radius(self) -> float:
        """In codes; an attack of least distance may go anywhere."""
        if self.entry.epsilon is None:
            return PIXEL_HIGH
        return parse_epsilon(self.entry.epsilon, self.entry.make().norm)

    def text(self) -> str:
        """The attack and everything that says how strong it is, in one line."""
        parts = [] if self.within is None else [f"within L2 {self.within:g}"]
        if self.entry.epsilon is not None:
            parts.append(f"epsilon {self.entry.epsilon} ({self.radius:g} codes)")
        settings = self.entry.make().parameters(self.radius)
        parts += [f"{name.replace('_', ' ')} {value:g}" if isinstance(value, float) else
                  f"{name.replace('_', ' ')} {value}" for name, value in settings.items()]  # fmt: skip
        along = " on the substitute" if self.entry.source == "substitute" else ""
        return f"{self.entry.attack}{along}: {', '.join(parts)}"


@dataclass(frozen=True)
class Strengths:
    """What is tried for each column of a table.

    Attributes:
        epsilon: The ball of adaptive attacks, queries and the masking verdict, in codes.
        fits: How far from the paper's, in points, the suite's own strength may leave the rows it is held against.
        columns: What may stand for a column, the suite's own first.
    """

    epsilon: int
    fits: float
    columns: Mapping[str, tuple[Strength, ...]]


def cw_of_suite() -> dict[str, Any]:
    """Return the suite's own settings of CW-L2."""
    return dict(next(one for one in load_suite("paper").file.attacks if one.attack == _CW).settings)


def load_strengths(data: DataName, attacker: Attacker, *, cw: tuple[int, int] | None = None) -> Strengths:
    """Return the strengths for the tables of a data set.

    Args:
        data: Which data set.
        attacker: White or black box.
        cw: Constants and steps for each of CW-L2; None for the suite's own.
    """
    file = read_toml("strengths.toml")
    entries = {entry.name: entry for entry in load_suite("paper").file.attacks}
    columns = {}
    for column, chosen in file[data][_SECTIONS[attacker]].items():
        entry = entries[chosen["attack"]]
        if cw is not None and entry.attack == _CW:
            steps = {"search_steps": cw[0], "steps": cw[1]}
            entry = entry.model_copy(update={"settings": {**entry.settings, **steps}})
        if "epsilon" in chosen:
            columns[column] = tuple(Strength(column, _at(entry, epsilon)) for epsilon in chosen["epsilon"])
        else:
            columns[column] = tuple(Strength(column, entry, radius) for radius in file[data]["radii"])
    return Strengths(int(parse_epsilon(file[data]["epsilon"])), float(file["fits"]), columns)


def _at(entry: Entry, epsilon: float | str) -> Entry:
    """An attack at another epsilon, the ratio of its step to the epsilon kept."""
    changed: dict[str, Any] = {"epsilon": epsilon}
    if _STEP in entry.settings and entry.epsilon is not None:
        ratio = parse_epsilon(epsilon) / parse_epsilon(entry.epsilon)
        changed["settings"] = {**entry.settings, _STEP: entry.settings[_STEP] * ratio}
    return entry.model_copy(update=changed)


def choose(
    table: PaperTable,
    column: str,
    strengths: Strengths,
    anchors: Sequence[str],
    measure: Callable[[str, Strength], float],
) -> tuple[Strength, str]:
    """Return a column's strength, and why it was chosen.

    Args:
        table: What the paper prints.
        column: Which column.
        strengths: What may be chosen.
        anchors: Rows that it is held against; none for the first strength as it is.
        measure: Gives the accuracy, in percent, of a row at a strength.
    """
    tried = strengths.columns[column]
    if not anchors:
        return tried[0], "as it is; held against nothing"
    distances: list[float] = []
    for strength in tried:
        gaps = [abs(measure(row, strength) - (table.value(row, column) or 0.0)) for row in anchors]
        distances.append(sum(gaps) / len(gaps))
        if distances[0] <= strengths.fits:
            break
    best = distances.index(min(distances))
    held = " and ".join(anchors)
    why = f"{distances[best]:.1f} points from the paper's on {held}, on average"
    if len(tried) > 1 and not best:
        fits = distances[0] <= strengths.fits
        return tried[0], f"the suite's own: {why}" + ("" if fits else "; no other that was tried is nearer")
    return tried[best], f"{why}, the nearest of {len(tried)}; the suite's own: {distances[0]:.1f}"
