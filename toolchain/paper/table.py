"""Measures one of the paper's tables: every model, every attack, with the verdict on what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import RecipeError
from ..runs import versions
from .bench import PROBED, Bench
from .images import make_substitute, paper_images
from .printed import CLEAN, paper_tables
from .records import NOT_COMPUTED, Cell, RowRecord, StrengthRecord, TableRecord, cell_of
from .strengths import QUICK_CW, Strength, Strengths, choose, cw_of_suite, load_strengths
from .subjects import Subject, make_subject
from .twelve import ANCHORS, Checkpoint, Row, find_checkpoint, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

    from .cells import Cells
    from .images import Images
    from .printed import PaperTable

    Progress = Callable[[str, float], None]

__all__ = ["QUICK_IMAGES", "USUAL_IMAGES", "Budget", "measure_table"]

USUAL_IMAGES = 1000
QUICK_IMAGES = 100


@dataclass(frozen=True)
class Budget:
    """What may be spent.

    Attributes:
        images: How many judge at most; None: `USUAL_IMAGES`, or `QUICK_IMAGES`.
        quick: Shorten the costliest attack, take every strength as the suite has it, and leave out the adaptive and
            query columns and the masking verdict.
        seed: Of everything random.
        probed: How many images, the first, adaptive attacks, queries and the masking verdict take at most.
        cw_steps: Constants and steps for each of CW-L2, in the place of the suite's (and of those of `quick`); None
            for these.
    """

    images: int | None = None
    quick: bool = False
    seed: int = 0
    probed: int = PROBED
    cw_steps: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        """How many images judge at most."""
        return self.images or (QUICK_IMAGES if self.quick else USUAL_IMAGES)

    @property
    def cw(self) -> tuple[int, int] | None:
        """Constants and steps of CW-L2; None for the suite's own."""
        return self.cw_steps or (QUICK_CW if self.quick else None)

    def text(self, images: int) -> str:
        """What is spent, in words."""
        own = "{search_steps} of {steps}".format(**cw_of_suite())
        cw = "" if self.cw is None else f"CW-L2 with {self.cw[0]} constants of {self.cw[1]} steps (not {own})"
        if not self.quick:
            probed = f"adaptive attacks, queries and verdict on the first {min(self.probed, images)}"
            return "; ".join(filter(None, (f"{images} images", cw, probed)))
        return (
            f"quick: a subset of {images} images, {cw}, strengths of the suite as they are, no adaptive attacks, no "
            "queries, no masking verdict"
        )


@dataclass(frozen=True, eq=False)
class _Table:
    """A table being measured."""

    printed: PaperTable
    bench: Bench
    strengths: Strengths
    budget: Budget
    subjects: Mapping[str, Subject]

    def measure(self, row: str, strength: Strength) -> float:
        return self.bench.attacked(self.subjects[row], strength).percent


def measure_table(
    number: int,
    cells: Cells,
    *,
    budget: Budget,
    data: str | None = None,
    called: str | None = None,
    zoo: Path | None = None,
    substitute: str | None = None,
    progress: Progress | None = None,
) -> TableRecord:
    """Measure a table.

    Args:
        number: 1 to 4.
        cells: Where finished figures are kept.
        budget: Images, seed, quick or not.
        data: The data set (see `paper_images`).
        called: What it is called beside the figures; None: its own name.
        zoo: A folder of checkpoints, looked in before the package's own.
        substitute: The model that black-box attacks are made on, a zoo name or a path; None: one is trained.
        progress: Called with what is done and its share.

    Raises:
        DataError: The images are not there, or do not fit.
        RecipeError: The folder of checkpoints does not exist.
        CheckpointError: Weights that are there cannot be loaded.
    """
    printed = paper_tables()[number]
    checkpoints = {row: find_checkpoint(printed.data, row.family, zoo) for row in rows()}
    images = paper_images(printed.data, data, budget.count, budget.seed)
    subjects, missing = _subjects(printed, checkpoints, images)
    model, words = None, ""
    if printed.attacker == "black box" and subjects:
        model, words = _substitute(printed, images, substitute, quick=budget.quick, progress=progress)
    bench = Bench(images.judged, cells, budget.seed, model, budget.probed)
    strengths = load_strengths(printed.data, printed.attacker, cw=budget.cw)
    table = _Table(printed, bench, strengths, budget, subjects)
    chosen = _chosen(table, progress)
    records = []
    for place, row in enumerate(rows()):

        def tell(what: str, share: float, place: int = place, name: str = row.name) -> None:
            if progress is not None:
                progress(f"{name}: {what}", (place + share) / len(rows()))

        records.append(_row(table, row, checkpoints[row], chosen, missing.get(row.name, ""), tell))
    return TableRecord(
        number=number,
        title=printed.title,
        data=called or images.judged.name,
        data_sha256=images.judged.sha256(),
        images=len(images.judged),
        probed=0 if budget.quick else len(bench.probed),
        epsilon_codes=strengths.epsilon,
        seed=budget.seed,
        quick=budget.quick,
        budget=budget.text(len(images.judged)),
        substitute=words,
        columns=printed.columns,
        strengths=tuple(_strength(one, why) for one, why in chosen.values()),
        rows=tuple(records),
        versions=versions(),
    )


def _subjects(
    printed: PaperTable, checkpoints: Mapping[Row, Checkpoint], images: Images
) -> tuple[dict[str, Subject], dict[str, str]]:
    """The models that can be made, and why the others cannot."""
    subjects: dict[str, Subject] = {}
    missing: dict[str, str] = {}
    for row, checkpoint in checkpoints.items():
        if checkpoint.file is None:
            missing[row.name] = f"no checkpoint {checkpoint.name}; train it: {checkpoint.command}"
            continue
        try:
            subjects[row.name] = make_subject(row, printed.data, checkpoint.file, images.calibration.images)
        except RecipeError as error:  # the literal domain of the map, which the weights may pass
            if not row.mapped:
                raise
            missing[row.name] = str(error)
    return subjects, missing


def _substitute(
    printed: PaperTable,
    images: Images,
    given: str | None,
    *,
    quick: bool,
    progress: Progress | None,
) -> tuple[nn.Module, str]:
    if given is None:
        return make_substitute(printed.data, images, quick=quick, progress=progress)
    from ...models.checkpoints import load_model

    # The name alone: where the file lies on this machine is nobody's business.
    return load_model(given), given.replace("\\", "/").rpartition("/")[2]


def _chosen(table: _Table, progress: Progress | None) -> dict[str, tuple[Strength, str]]:
    """The strength of each column and why; with `quick`, or without the models to hold them against, the suite's."""
    held = all(name in table.subjects for name in ANCHORS)
    anchors = ANCHORS if held and not table.budget.quick else ()
    chosen = {}
    for column in table.printed.columns:
        if column == CLEAN:
            continue
        if progress is not None and anchors:
            progress(f"strength of {column}", 0.0)
        strength, why = choose(table.printed, column, table.strengths, anchors, table.measure)
        if not anchors:
            why = "the first, " + (
                "since --quick tries no other" if held else f"since {' or '.join(ANCHORS)} is missing"
            )
        chosen[column] = strength, why
    return chosen


def _strength(strength: Strength, why: str) -> StrengthRecord:
    bounded = strength.entry.epsilon is not None and strength.entry.make().norm == "inf"
    return StrengthRecord(strength.column, strength.text(), why, float(strength.radius) if bounded else None)


def _row(
    table: _Table,
    row: Row,
    checkpoint: Checkpoint,
    chosen: Mapping[str, tuple[Strength, str]],
    missing: str,
    tell: Progress,
) -> RowRecord:
    printed, bench = table.printed, table.bench
    columns = printed.columns
    paper = {c: value for c in columns if (value := printed.value(row.name, c)) is not None}
    if missing:
        return RowRecord(
            row.name, checkpoint.name, checkpoint.sha256, missing, paper, {}, verdict="no figures to judge"
        )
    subject = table.subjects[row.name]
    cells: dict[str, Cell] = {}
    for place, column in enumerate(columns):
        tell(column, 0.5 * place / len(columns))
        found = bench.clean(subject) if column == CLEAN else bench.attacked(subject, chosen[column][0])
        cells[column] = cell_of(found, paper.get(column))
    if table.budget.quick:
        return RowRecord(row.name, checkpoint.name, checkpoint.sha256, "", paper, cells, verdict=NOT_COMPUTED)
    epsilon = table.strengths.epsilon
    tell("adaptive attacks", 0.5)
    adaptive = cell_of(bench.cascade(subject, "adaptive", epsilon))
    tell("queries", 0.7)
    query = cell_of(bench.cascade(subject, "query", epsilon))
    tell("masking verdict", 0.9)
    verdict = bench.verdict(subject, epsilon)
    return RowRecord(
        row.name, checkpoint.name, checkpoint.sha256, "", paper, cells, adaptive, query,
        verdict["label"], tuple(verdict["because"]),
    )  # fmt: skip
