"""A campaign: the attacks of a plan on one artifact, batch by batch, and what they leave.

Each attack takes its images in batches of a fixed size; what a batch finds depends on the batch alone (its images, its
seed), so batches may be run by anybody in any order (see `toolchain.jobs`), and a campaign that was killed goes on with
those that are left and ends with the same result. Where a suite cascades, an attack takes those images alone that
withstood the suite's earlier ones, and waits for them. At the end of an attack its whole set is judged once more, image
by image in the set's order: this is what is counted, and what replaying the set repeats.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError
from ..jobs import Alone
from ..runs import dataset_record, versions
from .batches import Aim, AttackBench, BatchJob
from .memory import batch_size_for
from .meter import Meter
from .outcome import AttackResult
from .results import (
    AttackRecord,
    CampaignResult,
    JudgeRecord,
    Queries,
    Share,
    SuiteRecord,
    at_radius,
    distances_of,
    worst_case,
)
from .state import NoState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ...models.image_data import Dataset
    from ..jobs import Crew
    from ..run_record import VerdictRow
    from .judges import ArtifactJudge
    from .meter import Tell
    from .planning import Plan, PlannedAttack
    from .sources import Sources
    from .state import Batch, State

# A fixed amount, and not what is free: each batch has its own seed, so that its size is part of a result.
_BATCH_BYTES = 1 << 30
_LARGEST_BATCH = 128

__all__ = ["Campaign", "Target", "campaign_plan", "run_campaign"]


@dataclass(frozen=True, eq=False)
class Target:
    """What a campaign attacks: who judges, on which images, and whose gradients there are.

    Attributes:
        judge: Decides.
        sources: Gradients.
        data: The images and their labels.
        left_out: How many others of the set calibrated the artifact.
        seed: Of everything random.
        batch: Images attacked at a time; None: as many as memory holds.
    """

    judge: ArtifactJudge
    sources: Sources
    data: Dataset
    left_out: int = 0
    seed: int = 0
    batch: int | None = None

    @cached_property
    def batch_size(self) -> int:
        """Images attacked at a time."""
        if self.batch is not None:
            return self.batch
        shape = self.data.images.shape[1:]
        sizes = [batch_size_for(source, shape, _BATCH_BYTES) for source in self.sources.all().values()]
        return min([_LARGEST_BATCH, *sizes])

    def check(self, plan: Plan) -> None:
        """Find out, before any attack runs, whether the images fit the artifact and the gradient sources.

        Raises:
            DataError: An image or label does not fit, or a gradient source is missing or takes other images.
            UnsupportedError: The artifact has no twin, and an attack needs its gradient.
        """
        classes = self.judge.logits(self.data.images[:1]).shape[1]
        highest = int(self.data.labels.max())
        if highest >= classes:
            raise DataError(
                f"{self.data.name}: found the label {highest}; the artifact knows the classes 0 to {classes - 1}"
            )
        self.sources.check(plan.sources, self.data.images)


@dataclass(frozen=True, eq=False)
class Campaign:
    """What a campaign found: figures, and the sets behind them.

    Attributes:
        target, plan: What ran.
        results: Of each attack of the plan, in its order, over all images.
        standing: What is right after each attack, bool `(N,)`; where the suite cascades, after all of it so far.
        seconds: What each attack took.
        verdict: Whether the figures can be trusted; None where it was not asked for.
    """

    target: Target
    plan: Plan
    results: tuple[AttackResult, ...]
    standing: tuple[NDArray[np.bool_], ...]
    seconds: tuple[float, ...]
    verdict: VerdictRow | None = None

    @cached_property
    def keyed(self) -> tuple[tuple[str, AttackResult], ...]:
        """Keys and results."""
        return tuple((one.key, result) for one, result in zip(self.plan.attacks, self.results, strict=True))

    @cached_property
    def result(self) -> CampaignResult:
        """The figures."""
        target, plan, ball = self.target, self.plan, self.plan.ball
        first = self.results[0]
        clean = np.asarray(first.clean_predictions == first.labels)
        balls = dict.fromkeys(
            [(ball.norm, float(ball.radius))]
            + [(r.norm, float(r.radius)) for r in self.results if r.norm != "none" and _is_ball(r)]
        )
        return CampaignResult(
            artifact_sha256=target.judge.artifact.sha256,
            data=dataset_record(target.data),
            left_out=target.left_out,
            judge=_judge_record(target.judge),
            seed=target.seed,
            norm=ball.norm,
            radius=ball.radius,
            suites=tuple(
                SuiteRecord(
                    name=suite.name,
                    title=suite.file.title,
                    source=suite.file.source,
                    cascade=suite.file.cascade,
                    sha256=suite.sha256,
                )
                for suite in plan.suites
            ),
            clean=Share.of(clean),
            attacks=tuple(
                _record(one, result, left)
                for one, result, left in zip(plan.attacks, self.results, self.standing, strict=True)
            ),
            skipped=plan.skipped,
            worst_case=tuple(worst_case(self.keyed, norm, radius) for norm, radius in balls),
            verdict=self.verdict,
            versions=versions(),
            seconds={one.key: round(taken, 3) for one, taken in zip(plan.attacks, self.seconds, strict=True)},
        )


def campaign_plan(target: Target, plan: Plan) -> dict[str, Any]:
    """Return everything that a campaign's result depends on, as JSON values: what `FolderState` compares."""
    return {
        "artifact": target.judge.artifact.sha256,
        "data_set": target.data.sha256(),
        "judge": _judge_record(target.judge).model_dump(mode="json"),
        "seed": target.seed,
        "batch_size": target.batch_size,
        "norm": plan.ball.norm,
        "radius": plan.ball.radius,
        "attacks": [one.to_json() for one in plan.attacks],
        "gradient_sources": target.sources.fingerprint(),
        "versions": versions(),
    }


def run_campaign(
    target: Target,
    plan: Plan,
    *,
    state: State | None = None,
    verdict: Callable[[Callable[[float], None]], VerdictRow] | None = None,
    crew: Crew | None = None,
    progress: Tell | None = None,
) -> Campaign:
    """Run a plan.

    Args:
        target: What is attacked.
        plan: What to do.
        state: Where finished batches are kept; None: nowhere.
        verdict: Finds the masking verdict, told of a function that takes the share which is done; None: without.
        crew: Who attacks the batches; None: this process. The sets are judged, and the verdict is found, here.
        progress: Called with what is being done and the share of all that is done.

    Raises:
        DataError: An image, label or gradient source does not fit; found out before any attack runs.
        UnsupportedError: A model that workers need was given as a module in memory.
        OhmfoldError: Workers fail (see `Crew.run`).
    """
    state = NoState() if state is None else state
    labels = target.data.labels
    target.check(plan)
    clean = target.judge.judge(target.data.images)
    meter = Meter(plan, progress, with_verdict=verdict is not None)
    crew = Alone() if crew is None else crew
    bench = AttackBench(target, {one.key: Aim.of(one) for one in plan.attacks})
    found: dict[str, tuple[AttackResult, NDArray[np.bool_], float]] = {}
    lines: dict[tuple[str, str, float], NDArray[np.bool_]] = {}
    right = np.asarray(clean == labels)
    for wave in plan.waves:
        standing = {one.key: lines.get(one.group, right) if one.suite.file.cascade else right for one in wave}
        batches = _attacked(wave, target, standing, bench, crew, state, meter)
        for one in wave:
            result = _judged(one, target, clean, batches[one.key], meter)
            left = standing[one.key] & ~result.success
            if one.suite.file.cascade:
                lines[one.group] = left
            found[one.key] = result, left, sum(batch.seconds for batch in batches[one.key])
    results, after, seconds = zip(*(found[one.key] for one in plan.attacks), strict=True)
    return Campaign(target, plan, results, after, seconds, _verdict(verdict, state, meter))


def _attacked(
    wave: Sequence[PlannedAttack],
    target: Target,
    standing: Mapping[str, NDArray[np.bool_]],
    bench: AttackBench,
    crew: Crew,
    state: State,
    meter: Meter,
) -> dict[str, list[Batch]]:
    """Attack what stands, batch by batch; the batches of each attack, in their order."""
    batches: dict[str, dict[int, Batch]] = {one.key: {} for one in wave}
    jobs = []
    for one in wave:
        todo = np.flatnonzero(standing[one.key])
        for number, start in enumerate(range(0, len(todo), target.batch_size)):
            job = BatchJob(one.key, number, todo[start : start + target.batch_size])
            batch = state.batch(one.key, number)
            if batch is None or not np.array_equal(batch.chosen, job.chosen):
                jobs.append(job)
            else:
                batches[one.key][number] = batch
    totals = {key: int(np.count_nonzero(stands)) for key, stands in standing.items()}
    tell = meter.of_batches([(job.key, len(job.chosen)) for job in jobs], totals)
    for place, batch in crew.run(bench, jobs, tell):
        state.keep(jobs[place].key, jobs[place].number, batch)
        batches[jobs[place].key][jobs[place].number] = batch
    return {key: [found[number] for number in sorted(found)] for key, found in batches.items()}


def _judged(
    one: PlannedAttack, target: Target, clean: NDArray[np.int64], batches: list[Batch], meter: Meter
) -> AttackResult:
    """Judge the whole set of an attack."""
    result = _joined(one, target, clean, batches)
    predictions = target.judge.judge(result.adversarial, max(1, target.batch_size))
    meter.finished(one)
    return replace(result, predictions=predictions)


def _joined(
    one: PlannedAttack, target: Target, clean: NDArray[np.int64], batches: list[Batch]
) -> AttackResult:
    """Batches as one result over all images; its predictions are still those of the clean images."""
    images, count = target.data.images, len(target.data)
    adversarial = images.copy()
    attacked, kept = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    for batch in batches:
        adversarial[batch.chosen] = batch.adversarial
        attacked[batch.chosen] = batch.attacked
        kept[batch.chosen] = batch.kept_earlier
    asked = any(batch.queries is not None for batch in batches)
    default = "twin" if one.attack.needs_gradient else "queries" if asked else "none"
    return AttackResult(
        name=one.attack.name,
        norm=one.attack.norm,
        radius=one.radius,
        seed=target.seed,
        parameters=one.attack.parameters(one.radius),
        original=images,
        adversarial=adversarial,
        labels=target.data.labels,
        clean_predictions=clean,
        predictions=clean,
        source=one.source or default,
        attacked=attacked,
        kept_earlier=kept,
        margins=_margins(batches, count),
        queries=_queries(batches, count) if asked else None,
    )


def _margins(batches: list[Batch], count: int) -> NDArray[np.float32] | None:
    rows = max((len(batch.margins) for batch in batches if batch.margins is not None), default=0)
    if not rows:
        return None
    joined = np.full((rows, count), np.nan, np.float32)
    for batch in batches:
        if batch.margins is not None:  # a batch that took fewer iterates stays where it ended
            joined[:, batch.chosen] = batch.margins[np.minimum(np.arange(rows), len(batch.margins) - 1)]
    return joined


def _queries(batches: list[Batch], count: int) -> NDArray[np.int64]:
    joined = np.zeros(count, np.int64)
    for batch in batches:
        if batch.queries is not None:
            joined[batch.chosen] = batch.queries
    return joined


def _verdict(
    find: Callable[[Callable[[float], None]], VerdictRow] | None, state: State, meter: Meter
) -> VerdictRow | None:
    if find is None:
        return None
    from ..run_record import VerdictRow as Row

    kept = state.verdict()
    if kept is not None:
        return Row.model_validate(kept)
    found = find(meter.verdict)
    state.keep_verdict(found.model_dump(mode="json"))
    # Read back, so that a figure is the same whether the campaign was interrupted here or not.
    return Row.model_validate_json(found.model_dump_json())


def _record(one: PlannedAttack, result: AttackResult, left: NDArray[np.bool_]) -> AttackRecord:
    right = np.asarray(result.clean_predictions == result.labels)
    turned = result.success & right
    bounded = result.norm == "inf"
    return AttackRecord(
        key=one.key,
        suite=one.suite.name,
        name=one.entry.name,
        attack=result.name,
        source=result.source,
        norm=result.norm,
        radius=result.radius,
        epsilon=result.radius / 255,
        parameters=dict(result.parameters),
        note=one.entry.note,
        cascade=one.suite.file.cascade,
        attacked=int(np.count_nonzero(result.attacked)),
        turned=int(np.count_nonzero(turned)),
        left=Share.of(left),
        kept_earlier=int(np.count_nonzero(result.kept_earlier)),
        distances=distances_of(result, "inf" if bounded else "2"),
        at_radii=tuple(at_radius(result, epsilon) for epsilon in one.entry.radii),
        queries=None
        if result.queries is None
        else Queries(
            total=int(result.queries.sum()),
            median_of_turned=float(np.median(result.queries[turned])) if turned.any() else None,
        ),
        adversarial=f"adversarial-{one.key}.npz",
    )


def _judge_record(judge: ArtifactJudge) -> JudgeRecord:
    name = judge.name
    if name.hardware is None:
        return JudgeRecord(name=name.name)
    return JudgeRecord(
        name=name.name,
        hardware=name.hardware.name,
        profile_sha256=name.hardware.sha256,
        profile_toml=name.hardware.to_toml(),
        seed=name.seed,
    )


def _is_ball(result: AttackResult) -> bool:
    """Whether a radius is one to report on: an attack of least distance has none but the whole range."""
    return result.radius > 0 and not (
        result.norm == "2" and result.radius >= 255 * np.sqrt(result.original[0].size)
    )
