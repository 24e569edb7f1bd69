"""Which attacks of which suites run on an artifact, at which radius, along whose gradient; and which cannot."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...errors import DataError, RecipeError
from .epsilon import PIXEL_HIGH, parse_epsilon
from .results import Skipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .base import Attack
    from .sources import Sources
    from .suite import Entry, Suite

__all__ = ["Ball", "Plan", "PlannedAttack", "make_plan"]

BallNorm = Literal["inf", "2"]

# Settings that say how many times a model is asked; their product says how long an attack takes beside others.
_COSTS = ("steps", "restarts", "search_steps", "targets")
_BUDGET = "budget"


@dataclass(frozen=True)
class Ball:
    """A norm and a radius, in pixel codes."""

    norm: BallNorm
    radius: float


@dataclass(frozen=True, eq=False)
class PlannedAttack:
    """One attack of a campaign.

    Attributes:
        key: Its name in the campaign.
        suite: Where it is from.
        entry: What the suite says of it.
        attack: The attack itself.
        radius: In codes.
        source: Whose gradient, as `Sources` calls it; None where it follows none.
    """

    key: str
    suite: Suite
    entry: Entry
    attack: Attack
    radius: float
    source: str | None

    @property
    def group(self) -> tuple[str, str, float]:
        """Attacks of a suite that cascade stand in line with those of the same ball."""
        return self.suite.name, self.attack.norm, self.radius

    @property
    def weight(self) -> float:
        """How long it takes beside others, roughly; for the progress alone."""
        settings = self.attack.parameters(self.radius)
        if _BUDGET in settings:  # an answer takes about half of what an answer with its gradient does
            return max(1.0, float(settings[_BUDGET]) / 2)
        weight = 1.0
        for name in _COSTS:
            value = settings.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                weight *= max(1, value)
        return weight

    def to_json(self) -> dict[str, Any]:
        """Everything about it that its result depends on."""
        return {
            "key": self.key,
            "suite": self.suite.sha256,
            "entry": self.entry.model_dump(mode="json"),
            "norm": self.attack.norm,
            "radius": self.radius,
            "source": self.source,
            "cascade": self.suite.file.cascade,
        }


@dataclass(frozen=True, eq=False)
class Plan:
    """What a campaign does, in order, and what it cannot do."""

    ball: Ball
    suites: tuple[Suite, ...]
    attacks: tuple[PlannedAttack, ...]
    skipped: tuple[Skipped, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the gradient sources that are needed, each once."""
        return tuple(dict.fromkeys(one.source for one in self.attacks if one.source is not None))

    @property
    def waves(self) -> tuple[tuple[PlannedAttack, ...], ...]:
        """The attacks in waves that depend on earlier ones alone: those of a line that cascades, one after another."""
        waves: list[list[PlannedAttack]] = []
        before: Counter[tuple[str, str, float]] = Counter()
        for one in self.attacks:
            place = before[one.group] if one.suite.file.cascade else 0
            before[one.group] += 1
            waves += [[] for _ in range(place + 1 - len(waves))]
            waves[place].append(one)
        return tuple(tuple(wave) for wave in waves)


def make_plan(suites: Sequence[Suite], ball: Ball, sources: Sources, ladder: Sequence[float] = ()) -> Plan:
    """Return what a campaign of these suites does.

    An attack whose gradient source was not given is left out, and the plan says why. Attacks that have no radius of
    their own run at the campaign's, and at each of the ladder's.

    Args:
        suites: At least one.
        ball: The campaign's norm and radius.
        sources: What gradients there are.
        ladder: Further radii in the campaign's norm, in codes.

    Raises:
        RecipeError: There is no suite.
        DataError: Not one attack can run; says why.
    """
    if not suites:
        raise RecipeError("no suite given; expected at least one")
    radii = (ball.radius, *(radius for radius in dict.fromkeys(ladder) if radius != ball.radius))
    expanded = {suite.name: suite for given in suites for suite in given.expanded()}
    planned: list[PlannedAttack] = []
    skipped: list[Skipped] = []
    for suite in expanded.values():
        for entry in suite.file.attacks:
            reasons = []
            for name in _source_names(entry, sources):
                reason = _reason(entry, ball, name, sources)
                if reason is not None:
                    reasons.append(reason)
                    continue
                for radius in radii if entry.epsilon is None else radii[:1]:
                    planned.append(_planned(suite, entry, ball, radius, name, planned))
            skipped += [Skipped(suite=suite.name, name=entry.name, reason=reason) for reason in reasons]
    if not planned:
        why = "; ".join(dict.fromkeys(f"{one.name}: {one.reason}" for one in skipped))
        raise DataError(f"none of the attacks can run: {why}")
    return Plan(ball, tuple(expanded.values()), tuple(planned), tuple(skipped))


def _source_names(entry: Entry, sources: Sources) -> Iterator[str | None]:
    """The sources that an entry runs on: for `substitute`, each substitute that there is."""
    if entry.gradient != "substitute":
        yield entry.gradient
    elif sources.substitutes:
        yield from sources.substitutes
    else:
        yield "substitute"


def _reason(entry: Entry, ball: Ball, source: str | None, sources: Sources) -> str | None:
    """Why an attack cannot run; None where it can."""
    attack = entry.make(ball.norm)
    # The strength of unbounded noise is a number of codes for each pixel, which an L2 radius is not.
    unlike = (
        attack.norm != ball.norm if attack.norm != "none" else ball.norm == "2" and not attack.needs_gradient
    )
    if entry.epsilon is None and unlike:
        return f"the campaign's norm is {ball.norm}, it is bound in norm {attack.norm}, and has no radius of its own"
    if source == "substitute":
        return "no substitute was given (--substitute)"
    return None if source is None else sources.missing(source)


def _planned(
    suite: Suite, entry: Entry, ball: Ball, radius: float, source: str | None, before: Sequence[PlannedAttack]
) -> PlannedAttack:
    attack = entry.make(ball.norm)
    if entry.epsilon is not None:
        radius = parse_epsilon(entry.epsilon, attack.norm)
    elif attack.norm != "2":
        radius = min(int(radius), PIXEL_HIGH)
    parts = [entry.name]
    parts += [source.partition(":")[2]] if source is not None and ":" in source else []
    parts += [f"{radius:g}"] if entry.epsilon is None and radius != ball.radius else []
    key = "-".join(parts)
    taken = {one.key for one in before}
    if key in taken:
        key = f"{suite.name}-{key}"
    if key in taken:
        raise RecipeError(
            f"two attacks of the campaign would be called {key!r}; give substitutes other names"
        )
    return PlannedAttack(key, suite, entry, attack, radius, source)
