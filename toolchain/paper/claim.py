"""What a claim of the paper is, what it is judged by, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .printed import read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .printed import DataName

__all__ = [
    "FAILS",
    "HOLDS",
    "MASKED",
    "NOT_MEASURED",
    "Figure",
    "Finding",
    "NotMeasured",
    "Outcome",
    "Rule",
    "enough",
    "everywhere",
    "read_rules",
]

HOLDS = "holds"
FAILS = "does not hold"
MASKED = "holds only because gradients vanish"
NOT_MEASURED = "not measured"

_SETS: tuple[DataName, ...] = ("mnist", "cifar10")


class NotMeasured(Exception):  # noqa: N818 - no error: a claim function's third way to end, caught by who calls it
    """What a claim needs is not there; the text says what, and which command measures it."""


@dataclass(frozen=True)
class Rule:
    """A claim and its rule for one data set, as `claims.toml` has them.

    Attributes:
        claim: Its short name.
        title: The claim in words.
        data: The data set.
        paper: What the paper says.
        numbers: Those of the rule, by name.
        images: On fewer no accuracy decides anything.
        template: The rule in words, with the names of its numbers.
    """

    claim: str
    title: str
    data: DataName
    paper: str
    numbers: Mapping[str, Any]
    images: int
    template: str

    @property
    def text(self) -> str:
        """The rule in words."""
        return self.template.format(**self.numbers)

    def number(self, name: str) -> float:
        """Return a number of the rule."""
        return float(self.numbers[name])


@dataclass(frozen=True)
class Figure:
    """A figure that says why: ours, and the paper's where it prints one.

    Attributes:
        what: In words.
        ours: None where it was not measured.
        paper: None where the paper has none.
        unit: `%`, `points`, or empty.
    """

    what: str
    ours: float | None
    paper: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Finding:
    """What a claim function returns.

    Attributes:
        verdict: `HOLDS`, `FAILS` or `MASKED`.
        why: In words.
        figures: What decided it, and what is worth seeing beside it.
        images: What accuracies were measured on, in words; empty where there are none.
    """

    verdict: str
    why: str
    figures: tuple[Figure, ...] = ()
    images: str = ""


@dataclass(frozen=True)
class Outcome:
    """A claim, judged for one data set.

    Attributes:
        claim, title, data, rule, paper: Of the rule.
        images: What the figures were measured on, in words; empty for none.
        verdict: One of the four.
        why: What decided it; of what was not measured, what is missing and how to measure it.
        figures: As in `Finding`.
    """

    claim: str
    title: str
    data: DataName
    rule: str
    paper: str
    images: str
    verdict: str
    why: str
    figures: tuple[Figure, ...]


def read_rules() -> tuple[Rule, ...]:
    """Return the rules of all claims, claim by claim, MNIST first."""
    file = read_toml("claims.toml")
    found = []
    for claim in file["claims"]:
        for data in _SETS:
            if data in claim:
                numbers = {name: value for name, value in claim[data].items() if name != "paper"}
                found.append(
                    Rule(
                        claim["id"], claim["title"], data, claim[data]["paper"], numbers, file["images"], claim["rule"]
                    )
                )  # fmt: skip
    return tuple(found)


def enough(rule: Rule, images: int, command: str) -> None:
    """Refuse to decide on too few images.

    Raises:
        NotMeasured: There are fewer than the rule asks for.
    """
    if images < rule.images:
        raise NotMeasured(
            f"measured on {images} images only, and on fewer than {rule.images} nothing is decided: {command}"
        )


def everywhere(
    broken: Sequence[str],
    missing: Sequence[str],
    good: str,
    figures: tuple[Figure, ...],
    images: str = "",
) -> Finding:
    """Judge what must hold in several models: one counterexample is enough, and without one all must be there.

    Args:
        broken: Where it does not hold, in words.
        missing: What is missing, with the command that measures it.
        good: What to say where it holds in all.
        figures: Of what is there.
        images: As in `Finding`.

    Raises:
        NotMeasured: There is no counterexample, and something is missing.
    """
    if broken:
        return Finding(FAILS, "; ".join(broken), figures, images)
    if missing:
        raise NotMeasured("; ".join(dict.fromkeys(missing)))
    return Finding(HOLDS, good, figures, images)
