"""Figures 3 and 4 as files: the norms of the weight error by layer, as JSON, CSV, Markdown and a chart."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..report.drawing import MARKERS, MUTED, SERIES, svg_file
from .printed import figure_shape
from .twelve import FAMILIES
from .write import csv_bytes, markdown_table, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from .norms import LayerNorms, NormRecord

__all__ = ["write_norms"]

_PANELS = {"spectral": "p = 2", "infinity": "p = infinity"}
_NORMS = {
    "spectral": "p = 2",
    "operator_spectral": "p = 2, operator",
    "infinity": "p = infinity",
    "operator_infinity": "p = infinity, operator",
}
_HEADINGS = ("model", "layer", "drawn", "mapped", *_NORMS)
_DASHES = (0, (4, 3))
_MAPPED = "+mu"
_TICKS = (1.0, 2.0, 5.0)
_ABOUT = """\
The largest factor by which dW can lengthen an input, dW being the error of {bits}-bit weights, activations in float.
A convolution is unfolded to a matrix, as in the paper; `operator`: what the layer is on its real input. Of `+mu` models
the layers with a star are mapped, the others are those of the plain model."""


def write_norms(record: NormRecord, out: Path) -> tuple[Path, ...]:
    """Write Figure 3 or 4 as `figure3.json`, `.csv`, `.md` and `.svg`; return the files.

    Raises:
        OutputError: One cannot be written.
    """
    title, shape = figure_shape(record.number)
    contents = {
        "json": json.dumps({"title": title, "paper_shape": shape, **asdict(record)}, indent=1),
        "csv": csv_bytes(_HEADINGS, _rows(record)),
        "md": _markdown(record, title, shape),
        "svg": _chart(record, f"Figure {record.number}: {title}. {shape}"),
    }
    return write_files(f"figure{record.number}", contents, out)


def _rows(record: NormRecord) -> list[list[object]]:
    rows: list[list[object]] = []
    for model, layers in record.models.items():
        for one in layers:
            values = [repr(getattr(one.norms, name)) for name in _NORMS]
            rows.append([model, one.layer, one.drawn or "", int(one.mapped), *values])
        rows.append([model, "product", "", "", *(repr(getattr(record.products[model], n)) for n in _NORMS)])
    return rows


def _markdown(record: NormRecord, title: str, shape: str) -> str:
    lines = [
        f"# Figure {record.number}: {title}",
        _ABOUT.format(bits=record.bits),
        f"The paper's shape: {shape}",
    ]
    for name, words in _NORMS.items():
        body = []
        for model, layers in record.models.items():
            cells = [_figure(one, name) for one in _drawn(layers)]
            body.append([model, *cells, f"{getattr(record.products[model], name):.3g}"])
        headings = ["Model", *_axis(record), "product of all layers"]
        if body:
            lines += [f"## {words}", markdown_table(headings, body)]
    lines += [f"- {model}: {why}" for model, why in record.missing.items()]
    return "\n\n".join(lines) + "\n"


def _figure(one: LayerNorms, name: str) -> str:
    return f"{getattr(one.norms, name):.3f}{' *' if one.mapped else ''}"


def _drawn(layers: tuple[LayerNorms, ...]) -> list[LayerNorms]:
    return sorted((one for one in layers if one.drawn is not None), key=lambda one: one.drawn or 0)


def _axis(record: NormRecord) -> list[str]:
    layers = next(iter(record.models.values()), ())
    return [f"{one.drawn}: {one.layer}" for one in _drawn(layers)]


def _chart(record: NormRecord, spoken: str) -> str:
    """Draw a panel for each p, a line for each model; of a mapped model its mapped layers, dashed."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis = _axis(record)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(_PANELS), squeeze=False)[0]
        for (name, words), axes in zip(_PANELS.items(), panels, strict=True):
            for model, layers in record.models.items():
                mapped = model.endswith(_MAPPED)
                place = FAMILIES.index(model.removesuffix(_MAPPED))
                points = [one for one in _drawn(layers) if one.mapped or not mapped]
                axes.plot(
                    [one.drawn for one in points], [getattr(one.norms, name) for one in points],
                    marker=MARKERS[place], color=SERIES[place], markersize=4.5, linewidth=1.2,
                    linestyle=_DASHES if mapped else "-", fillstyle="none" if mapped else "full", label=model,
                )  # fmt: skip
            axes.axhline(1.0, color=MUTED, linewidth=0.8)
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=_TICKS))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_xticks(range(1, len(axis) + 1), axis, rotation=25, ha="right")
            axes.grid(axis="y")
            axes.set_axisbelow(True)
            axes.set_title(f"{words}, unfolded", fontsize="small")
            axes.set_ylabel("Lipschitz constant of dW (logarithmic)")
        if record.models:
            handles, labels = panels[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper left", ncols=6, handletextpad=0.4)

    return svg_file(draw, 3.8, spoken)
