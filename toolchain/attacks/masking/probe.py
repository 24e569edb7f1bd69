"""The probe: runs the attacks of a plan on a model, and keeps what they left as evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from math import inf, sqrt
from typing import TYPE_CHECKING

import numpy as np

from ....errors import DataError, MissingDependencyError
from ..base import Problem
from ..catalogue import ATTACKS, make_attack
from ..epsilon import PIXEL_HIGH
from ..protocols import ScoreJudge, described, predicted
from .comparisons import WHITE_BOX
from .evidence import Evidence, Gradients, ProbeRun, Repeats
from .plan import default_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from ..base import AttackResult, GradientSource, Judge
    from ..epsilon import Norm
    from .evidence import Role
    from .plan import Plan, PlannedRun

__all__ = ["OWN", "PARENTS", "SUBSTITUTE", "gather"]

OWN = "twin"
"""Name of the model's own gradient among the sources."""
PARENTS = ("parent", "unmapped")
"""Names of the gradients of what it was made from."""
SUBSTITUTE = "substitute:"
"""How the names of other models begin."""

# What an attack of a role is run on: what withstood all attacks of these roles before it.
_AFTER: Mapping[str, tuple[Role, ...]] = {
    "noise": ("noise",),
    "doubled-steps": ("iterative", "doubled-steps", "restart"),
    "restart": ("iterative", "doubled-steps", "restart"),
    "other-descent": WHITE_BOX,
    "adaptive": (*WHITE_BOX, "adaptive"),
    "parent": (*WHITE_BOX, "parent"),
    "black-box": (*WHITE_BOX, "black-box"),
}
_ASKING_LOGITS = ("square", "spsa")
_NO_SOURCE: Mapping[str, str] = {
    "parent": "no model that this one was made from was given",
    "black-box": "no substitute was given",
}


def gather(
    judge: Judge,
    sources: Mapping[str, GradientSource],
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    radius: float,
    norm: Norm = "inf",
    *,
    seed: int = 0,
    batch_size: int = 128,
    noise_seed: int | None = None,
    plan: Plan | None = None,
    progress: Callable[[float], None] | None = None,
) -> Evidence:
    """Attack a model as the plan says, and return the evidence.

    Args:
        judge: Its labels decide; one that tells logits too (`ScoreJudge`, an emulator) can be attacked by queries.
        sources: From float32 pixels in [0, 1] to logits, by name: `twin` the model's own gradient, `parent` and
            `unmapped` those of what it was made from, `substitute:NAME` those of other models. Without `twin` there is
            no white-box attack, and no verdict but an inconclusive one.
        images: uint8 `(N, ...)`; the first ones are used, as many as the plan says.
        labels: Integers `(N,)`.
        radius: In pixel codes, above 0: an integer up to 255, with norm "2" any number.
        norm: "inf" or "2".
        seed: Of everything random.
        batch_size: Images attacked at a time.
        noise_seed: The seed of a judge with the read noise of a hardware profile; None for one of exact integers.
        plan: By default the shipped one.
        progress: Called with the share that is done.

    Raises:
        DataError: Images, labels or radius are not as described, or a source takes other images.
    """
    plan = default_plan() if plan is None else plan
    _check(images, labels, radius, norm)
    images, classes = images[: plan.images], np.asarray(labels)[: plan.images].astype(np.int64)
    probe = _Probe(judge, sources, images, classes, radius, norm, seed, batch_size)
    total = sum(run.calls * len(probe.sources_for(run)) for run in plan.runs) or 1
    done = 0

    def tell(share: float, calls: int) -> None:
        if progress is not None:
            progress((done + share * calls) / total)

    for position, run in enumerate(plan.runs):
        names = probe.sources_for(run)
        if not names:
            probe.skipped[_what(run)] = _NO_SOURCE.get(run.role, "the model gives no gradient")
        for name in names:
            probe.attack(run, position, name, partial(tell, calls=run.calls))
            done += run.calls
            tell(0.0, 0)
    return probe.evidence(plan.repeats, noise_seed)


@dataclass(eq=False)
class _Probe:
    """A probe under way: what it is about, and what was found so far."""

    judge: Judge
    given: Mapping[str, GradientSource]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    radius: float
    norm: Norm
    seed: int
    batch_size: int
    runs: list[ProbeRun] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from .gradients import Differentiable, Logarithms, probabilities

        self.sources = {name: Differentiable(source) for name, source in self.given.items()}
        self.clean_correct = np.asarray(predicted(self.judge, self.images, self.batch_size) == self.labels)
        self.probabilities: NDArray[np.bool_] | None = None
        self.restored: GradientSource | None = self.sources.get(OWN)
        if OWN in self.sources:
            self.probabilities = probabilities(self._logits(1)[0])
            if self.probabilities.all():
                self.restored = Logarithms(self.sources[OWN])
        self.ends: NDArray[np.uint8] = self.images

    def sources_for(self, run: PlannedRun) -> Sequence[str]:
        """Names of the gradients along which a run is made; one empty name for a run without."""
        if not ATTACKS[run.attack].needs_gradient:
            return ("",)
        if run.role == "parent":
            return [name for name in PARENTS if name in self.sources]
        if run.role == "black-box":
            return [name for name in self.sources if name.startswith(SUBSTITUTE)]
        return [OWN] if OWN in self.sources else []

    def attack(self, run: PlannedRun, position: int, name: str, tell: Callable[[float], None]) -> None:
        """Run one attack of the plan, as often as it says, on what it is for."""
        reason = self._reason(run)
        radius = self._radius(run)
        what = _what(run)
        if reason is not None or radius is None:
            self.skipped[what] = reason or "the ball has no such radius apart from its own"
            return
        if run.only_without and f"{run.role} {run.only_without}" not in self.skipped:
            return
        attack = make_attack(run.attack, **run.settings, norm=self.norm)
        source: GradientSource | None = self.sources.get(name)
        if run.role == "adaptive":
            source = self.restored
        for time in range(run.times):
            try:
                result = attack(
                    source,
                    self.judge,
                    self.images,
                    self.labels,
                    radius,
                    seed=int(np.random.SeedSequence([self.seed, position, time]).generate_state(1)[0]),
                    batch_size=self.batch_size,
                    standing=self._left(run.role),
                    source=name or None,
                    progress=partial(_tell_share, tell, time, run.times),
                )
            except MissingDependencyError as error:
                self.skipped[what] = str(error)
                return
            self._keep(run.role, name, result)

    def evidence(self, repeats: int, noise_seed: int | None) -> Evidence:
        """What was found, with what the gradients are like, and what asking again brings."""
        return Evidence(
            clean_correct=self.clean_correct,
            norm=self.norm,
            radius=self.radius,
            runs=tuple(self.runs),
            gradients=self._gradients() if OWN in self.sources else (),
            repeats=self._repeats(repeats, noise_seed),
            probabilities=self.probabilities,
            skipped=self.skipped,
        )

    def _left(self, role: Role) -> NDArray[np.bool_]:
        found = Evidence(self.clean_correct, self.norm, self.radius, tuple(self.runs))
        return found.left_by(*_AFTER.get(role, ()))

    def _keep(self, role: Role, name: str, result: AttackResult) -> None:
        own = name in ("", OWN)
        if role == "iterative":
            self.ends = result.adversarial
        self.runs.append(
            ProbeRun(
                role=role,
                name=_described(result) if own else f"{_described(result)} through {name}",
                radius=result.radius,
                settings=result.parameters,
                attacked=result.attacked,
                standing=result.attacked & ~result.success,
                kept_earlier=result.kept_earlier,
                margins=result.margins,
            )
        )

    def _reason(self, run: PlannedRun) -> str | None:
        """Why a run cannot be made."""
        if self.norm not in ATTACKS[run.attack].norms:
            return f"it is not defined for the norm {self.norm!r}"
        if run.attack in _ASKING_LOGITS and not (isinstance(self.judge, ScoreJudge) or callable(self.judge)):
            return "the judge tells labels alone"
        return None

    def _radius(self, run: PlannedRun) -> float | None:
        """The radius of a run; None where it would be that of the ball itself, though another is meant."""
        whole = PIXEL_HIGH * (sqrt(self.images[0].size) if self.norm == "2" else 1)
        if run.radius_factor == "range":
            return whole
        wanted = min(self.radius * run.radius_factor, whole)
        radius = wanted if self.norm == "2" else max(1, int(wanted))
        return None if run.radius_factor != 1 and radius == self.radius else radius

    def _batches(self) -> Iterator[slice]:
        for start in range(0, len(self.images), self.batch_size):
            yield slice(start, start + self.batch_size)

    def _problem(self, images: NDArray[np.uint8], batch: slice) -> Problem:
        return Problem(
            self.sources[OWN], self.judge, images[batch], self.labels[batch], self.radius, self.seed
        )

    def _logits(self, times: int) -> NDArray[np.float32]:
        from .gradients import logits_of

        parts = [logits_of(self._problem(self.images, batch), times) for batch in self._batches()]
        return np.concatenate(parts, axis=1)

    def _gradients(self) -> tuple[Gradients, ...]:
        from .gradients import gradients_at

        found = []
        places = {"at clean images": self.images, "where the iterative attack ended": self.ends}
        seen = {
            "at clean images": self.clean_correct,
            "where the iterative attack ended": self._left_by_iterative(),
        }
        for where, images in places.items():
            parts = [gradients_at(self._problem(images, batch)) for batch in self._batches()]
            zero = np.concatenate([part[0] for part in parts])
            finite = np.concatenate([part[1] for part in parts])
            found.append(Gradients(where, seen[where], zero, finite))
        return tuple(found)

    def _left_by_iterative(self) -> NDArray[np.bool_]:
        return Evidence(self.clean_correct, self.norm, self.radius, tuple(self.runs)).left_by("iterative")

    def _repeats(self, times: int, noise_seed: int | None) -> Repeats:
        count = len(self.images)
        judge, order, source = (np.zeros(count, np.bool_) for _ in range(3))
        # What an attack brought near the boundary shows a change of label that clean images hide.
        for images in (self.images, self.ends):
            first = self._answers(images)
            for _ in range(times - 1):
                judge |= _differ(first, self._answers(images))
            # Not a view: a judge may take no negative strides.
            backwards = predicted(self.judge, images[::-1].copy(), self.batch_size)[::-1]
            # Labels: the logits of a float model may round otherwise elsewhere in a batch.
            order |= backwards != predicted(self.judge, images, self.batch_size)
        if OWN in self.sources:
            logits = self._logits(times)
            for again in logits[1:]:
                source |= _differ(logits[0], again)
        return Repeats(times, judge, order, source, noise_seed)

    def _answers(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        """What the judge tells: logits where it can, labels where not, `(N, ...)`."""
        judge: Any = self.judge
        ask = judge.logits if isinstance(judge, ScoreJudge) else judge if callable(judge) else judge.predict
        return np.concatenate([np.asarray(ask(images[batch])) for batch in self._batches()])


def _check(images: NDArray[np.uint8], labels: NDArray[np.integer[Any]], radius: float, norm: Norm) -> None:
    """Refuse what no attack takes, before anything is asked about."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim < 2 or not images.size:
        raise DataError(f"images: found {described(images)}; expected a non-empty uint8 array (N, C, H, W)")
    labels = np.asarray(labels)
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels: found {described(labels)}; expected {len(images)} integers, one per image")
    number = isinstance(radius, int | float | np.integer | np.floating) and not isinstance(radius, bool)
    if norm == "2" and number and 0 < radius < inf:
        return
    if norm != "inf" or not number or int(radius) != radius or not 0 < radius <= PIXEL_HIGH:
        raise DataError(
            f"found the radius {radius!r} and the norm {norm!r}; expected 1 to {PIXEL_HIGH} codes for the norm 'inf', "
            "or any number of codes above 0 for the norm '2'"
        )


def _what(run: PlannedRun) -> str:
    return f"{run.role} {run.attack}"


def _tell_share(tell: Callable[[float], None], time: int, times: int, done: int, of: int) -> None:
    tell((time + done / max(of, 1)) / times)


def _described(result: AttackResult) -> str:
    loss, temperature = result.parameters.get("loss"), result.parameters.get("temperature")
    if loss is None:
        return result.name
    # No other loss has a temperature.
    return f"{result.name} ({loss}{f', temperature {temperature}' if loss == 'cross-entropy' else ''})"


def _differ(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.bool_]:
    """Which images got another answer; NaN is like NaN."""
    same = (first == second) | ((first != first) & (second != second))
    return np.asarray(~same.reshape(len(same), -1).all(axis=1))
