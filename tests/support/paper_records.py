"""Made-up records of tables, figures and further measurements, to judge claims by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ohmfold.toolchain.analysis.lipschitz import Lipschitz
from ohmfold.toolchain.paper.extras import Extras, LayerTerms
from ohmfold.toolchain.paper.figures import WidthRecord
from ohmfold.toolchain.paper.norms import FIGURE_OF, LayerNorms, NormRecord
from ohmfold.toolchain.paper.printed import paper_tables
from ohmfold.toolchain.paper.records import Cell, RowRecord, StrengthRecord, TableRecord
from ohmfold.toolchain.paper.results import Results

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ohmfold.toolchain.paper.printed import DataName

IMAGES = 1000
BALL = 76


def cell(percent: float, images: int = IMAGES) -> Cell:
    """An accuracy."""
    return Cell(round(percent * images / 100), images, percent, percent, percent)


def row(
    name: str,
    shares: Mapping[str, float],
    *,
    verdict: str = "trustworthy",
    adaptive: float | None = 0.0,
    images: int = IMAGES,
) -> RowRecord:
    """A model of a table."""
    return RowRecord(
        name, "mnist-cnn", "00", "", {}, {column: cell(share, images) for column, share in shares.items()},
        None if adaptive is None else cell(adaptive), None, verdict, ("loss scale",) if verdict == "masked" else (),
    )  # fmt: skip


def missing_row(name: str) -> RowRecord:
    """A model that nobody trained."""
    why = "no checkpoint mnist-cnn-fl; train it: ohmfold train --recipe feedback"
    return RowRecord(name, "mnist-cnn-fl", "", why, {}, {}, verdict="no figures to judge")


def table(
    number: int, rows: Sequence[RowRecord], *, images: int = IMAGES, ball: Sequence[str] = ("FGSM (s)", "PGD")
) -> TableRecord:
    """A table; attacks of the columns `ball` are as strong as the adaptive ones, the others weaker."""
    printed = paper_tables()[number]
    strengths = [
        StrengthRecord(column, "an attack", "made up", BALL if column in ball else 25.0)
        for column in printed.columns
        if column != "Clean"
    ]
    return TableRecord(
        number, printed.title, "made-up images", "00", images, 200, BALL, 0, False, "", "", printed.columns,
        tuple(strengths), tuple(rows), {},
    )  # fmt: skip


def flat(number: int, percent: float) -> dict[str, float]:
    """The same accuracy in every column of a table."""
    return dict.fromkeys(paper_tables()[number].columns, percent)


def widths(families: Mapping[str, tuple[float, float]], images: int = IMAGES) -> WidthRecord:
    """Figure 1 at 3 bits and in float, in this order."""
    cells = {f: {"3": cell(few, images), "float": cell(real, images)} for f, (few, real) in families.items()}
    return WidthRecord("made-up images", images, 0, cells, {})


def norms(data: DataName, models: Mapping[str, Sequence[float]]) -> NormRecord:
    """Figure 3 or 4 by the constants of the layers, p = 2."""
    layers = {
        name: tuple(
            LayerNorms(f"layer{place}", place, False, Lipschitz(value, value, value, value))
            for place, value in enumerate(values, start=1)
        )
        for name, values in models.items()
    }
    families = ("Orig.", "Adv.", "F.L.", "Orig.+mu", "Adv.+mu", "F.L.+mu")
    absent = {name: f"no checkpoint of {name}" for name in families if name not in models}
    return NormRecord(FIGURE_OF[data], data, 3, layers, {}, {}, absent)


def terms(**families: Sequence[tuple[float, float, float]]) -> dict[str, tuple[LayerTerms, ...]]:
    """Eq. 1 of `orig`, `adv` and `fl`: lengths of the attack's, the quantisation's and the cross term by layer."""
    names = {"orig": "Orig.", "adv": "Adv.", "fl": "F.L."}
    return {
        names[family]: tuple(
            LayerTerms(f"layer{place}", *lengths) for place, lengths in enumerate(layers, start=1)
        )
        for family, layers in families.items()
    }


def results(
    data: DataName = "mnist",
    *,
    white: TableRecord | None = None,
    black: TableRecord | None = None,
    widths: WidthRecord | None = None,
    norms: NormRecord | None = None,
    extras: Extras | None = None,
) -> Results:
    """What is known of a data set."""
    return Results(data, white, black, widths, norms, extras or Extras("made-up images"))
