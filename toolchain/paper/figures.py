"""The paper's Figures 1 and 2: clean accuracy against the width of the weights, and the mu-law map."""

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..report.drawing import MARKERS, MUTED, SERIES, svg_file
from .images import paper_images
from .printed import figure_shape
from .records import Cell, cell_of
from .twelve import FAMILIES, MU, Row, find_checkpoint
from .write import csv_bytes, markdown_table, write_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.figure import Figure

    from .cells import Cells
    from .printed import DataName
    from .table import Budget

__all__ = ["CURVES", "WIDTHS", "WidthRecord", "measure_widths", "write_curves", "write_widths"]

WIDTHS = tuple(range(1, 9))
CURVES = (1.0, 15.0, 63.0, MU)
"""Values of mu that are drawn: the paper's figure says that curves bend more as mu grows; 255 is what it uses."""

_FLOAT = "float"
_POINTS = 101


@dataclass(frozen=True)
class WidthRecord:
    """Figure 1 for a data set: by family, the accuracy at each width and in float; why a family has none."""

    data: str
    images: int
    seed: int
    cells: Mapping[str, Mapping[str, Cell]]
    missing: Mapping[str, str]


def measure_widths(
    data: DataName,
    cells: Cells,
    *,
    budget: Budget,
    spec: str | None = None,
    called: str | None = None,
    zoo: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> WidthRecord:
    """Measure the clean accuracy of the three models with weights of 1 to 8 bits and activations in float.

    Args:
        data: Which data set.
        cells: Where finished figures are kept.
        budget: Images and seed.
        spec: The data set (see `paper_images`).
        called: What it is called beside the figures; None: its own name.
        zoo: A folder of checkpoints, looked in before the package's own.
        progress: Called with what is done and its share.

    Raises:
        DataError: The images are not there, or do not fit.
        CheckpointError: Weights that are there cannot be loaded.
    """
    from ...models.checkpoints import load_model, weights_sha256
    from .bench import Bench
    from .subjects import ModuleJudge, Subject
    from .weight_only import weight_only

    images = paper_images(data, spec, budget.count, budget.seed)
    bench = Bench(images.judged, cells, budget.seed)
    found: dict[str, dict[str, Cell]] = {}
    missing: dict[str, str] = {}
    for place, family in enumerate(FAMILIES):
        checkpoint = find_checkpoint(data, family, zoo)
        if checkpoint.file is None:
            missing[family] = f"no checkpoint {checkpoint.name}; train it: {checkpoint.command}"
            continue
        plain = load_model(checkpoint.file)
        found[family] = {}
        for step, bits in enumerate((*WIDTHS, None)):
            if progress is not None:
                progress(f"{family} at {bits or _FLOAT}", (place + step / (len(WIDTHS) + 1)) / len(FAMILIES))
            model = plain if bits is None else weight_only(plain, bits)
            identity = {"weights": weights_sha256(model), "mapped": False}
            subject = Subject(Row(family), ModuleJudge(model), {"twin": model}, identity)
            found[family][_FLOAT if bits is None else str(bits)] = cell_of(bench.clean(subject))
    return WidthRecord(called or images.judged.name, len(images.judged), budget.seed, found, missing)


def write_widths(data: DataName, record: WidthRecord, out: Path) -> tuple[Path, ...]:
    """Write Figure 1 for a data set as `figure1-mnist.json`, `.csv`, `.md` and `.svg`; return the files.

    Raises:
        OutputError: One cannot be written.
    """
    title, shape = figure_shape(1)
    widths = [*map(str, WIDTHS), _FLOAT]
    rows = [
        [
            family,
            width,
            cell.correct,
            cell.images,
            f"{cell.percent:.4f}",
            f"{cell.low:.4f}",
            f"{cell.high:.4f}",
        ]
        for family, by_width in record.cells.items()
        for width, cell in by_width.items()
    ]
    table = markdown_table(
        ["Model", *(f"{width} bits" if width != _FLOAT else width for width in widths)],
        [[family, *(f"{by[w].percent:.2f}" for w in widths)] for family, by in record.cells.items()],
    )
    about = (
        f"{record.images} images of {record.data}, percent; weights alone are rounded, activations are in float; "
        f"1 bit is the sign times the mean of |W|. Seed {record.seed}."
    )
    lines = [
        f"# Figure 1: {title}",
        about,
        f"The paper's shape: {shape}",
        table,
        *(f"- {family}: {why}" for family, why in record.missing.items()),
    ]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, (family, by) in enumerate(record.cells.items()):
            points = [by[width] for width in widths]
            axes.errorbar(
                range(len(widths)),
                [cell.percent for cell in points],
                yerr=(
                    [cell.percent - cell.low for cell in points],
                    [cell.high - cell.percent for cell in points],
                ),
                marker=MARKERS[place], color=SERIES[place], markersize=4.5, elinewidth=1.0, label=family,
            )  # fmt: skip
        axes.set_xticks(range(len(widths)), widths)
        axes.set_ylim(-2, 102)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.set_xlabel("bits of a weight")
        axes.set_ylabel(f"accuracy in percent, {record.images} images of {record.data}")
        if record.cells:
            figure.legend(loc="outside upper left", ncols=3, handletextpad=0.4)

    contents = {
        "json": json.dumps({"title": title, "paper_shape": shape, **asdict(record)}, indent=1),
        "csv": csv_bytes(("model", "bits", "correct", "images", "percent", "low", "high"), rows),
        "md": "\n\n".join(lines) + "\n",
        "svg": svg_file(draw, 4.0, f"Figure 1: {title}. {shape}"),
    }
    return write_files(f"figure1-{data}", contents, out)


def write_curves(out: Path) -> tuple[Path, ...]:
    """Write Figure 2, the mu-law map F(w) = sgn(w) ln(1 + mu |w|) / ln(1 + mu) (Eq. 3a); return the files.

    Raises:
        OutputError: One cannot be written.
    """
    title, shape = figure_shape(2)
    w = np.linspace(-1.0, 1.0, _POINTS)
    curves = {mu: np.sign(w) * np.log1p(mu * np.abs(w)) / np.log1p(mu) for mu in CURVES}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(w, w, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), label="no map")
        for place, (mu, y) in enumerate(curves.items()):
            axes.plot(w, y, color=SERIES[place], linewidth=1.4, label=f"mu = {mu:g}")
        axes.grid()
        axes.set_xlabel("w")
        axes.set_ylabel("F(w)")
        figure.legend(loc="outside upper left", ncols=5, handletextpad=0.4)

    half = [[f"{mu:g}", f"{float(np.log1p(mu / 2) / np.log1p(mu)):.4f}", f"{mu / float(np.log1p(mu)):.2f}"]
            for mu in CURVES]  # fmt: skip
    document: dict[str, Any] = {"title": title, "paper_shape": shape, "w": w.round(6).tolist()}
    document["curves"] = {f"{mu:g}": y.round(6).tolist() for mu, y in curves.items()}
    rows = [[f"{x:.6f}", *(f"{y[i]:.6f}" for y in curves.values())] for i, x in enumerate(w)]
    contents = {
        "json": json.dumps(document, indent=1),
        "csv": csv_bytes(("w", *(f"mu={mu:g}" for mu in CURVES)), rows),
        "md": f"# Figure 2: {title}\n\nThe paper's shape: {shape}\n\n"
        + markdown_table(["mu", "F(0.5)", "slope at 0"], half)
        + "\n",
        "svg": svg_file(draw, 4.0, f"Figure 2: {title}. {shape}"),
    }
    return write_files("figure2", contents, out)
