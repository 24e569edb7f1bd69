"""Charts of an analysis, as SVG files: the terms of Eq. 1, the norms of Eq. 2, and weights against their levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .drawing import INK, MARKERS, MUTED, SERIES, page_svg, svg_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..analysis.quantised_layers import QuantisedLayer
    from ..analysis.report import Analysis

__all__ = ["lipschitz_chart", "lipschitz_figure", "terms_chart", "terms_figure", "weight_histogram"]

_BINS = 121
_LONGEST_NAME = 26
_DASHES = (0, (4, 3))
_TERMS = {
    "attack": "attack, |W dx|",
    "quantisation": "quantisation, |dW x|",
    "cross": "cross, |dW dx|",
}
# An axis that spans more than this factor is labelled at powers of ten alone.
_WIDE = 1000.0
# Beyond this many levels a line for each is a grey area.
_MOST_LINES = 33


def terms_chart(analysis: Analysis) -> str:
    """Draw the three terms of Eq. 1, relative to |W x|, a row for each layer; a term of 0 has no dot."""
    return svg_file(lambda figure: _terms(figure, analysis, 3), *_size_of_terms(analysis))


def terms_figure(analysis: Analysis, key: str) -> Markup:
    """Draw the same for a page; `key` as in `page_svg`."""
    return page_svg(key, lambda figure: _terms(figure, analysis, 1), *_size_of_terms(analysis, 0.45))


def _shares(analysis: Analysis) -> dict[str, list[float | None]]:
    return {
        label: [layer.terms.relative(term) for layer in analysis.layers] for term, label in _TERMS.items()
    }


def _terms(figure: Figure, analysis: Analysis, columns: int) -> None:
    shares = _shares(analysis)
    axes = figure.subplots()
    for place, (label, values) in enumerate(shares.items()):
        _dots(axes, values, place, label)
    if any(share for values in shares.values() for share in values):
        _logarithmic(axes, lambda share, _: f"{100 * share:g} %")
    axes.set_xlabel("mean length relative to that of W x (logarithmic)")
    _rows(figure, axes, [layer.name for layer in analysis.layers], columns)


def _size_of_terms(analysis: Analysis, more: float = 0.0) -> tuple[float, str]:
    """Height of the chart, and what it shows in words."""
    shares = _shares(analysis)
    spoken = "; ".join(
        f"{layer.name}: "
        + ", ".join(
            f"{label.partition(',')[0]} {_percent(values[place])}" for label, values in shares.items()
        )
        for place, layer in enumerate(analysis.layers)
    )
    height = 1.2 + more + 0.5 * len(analysis.layers)
    return height, f"The terms of the output's error, by layer. {spoken}."


def lipschitz_chart(analysis: Analysis) -> str:
    """Draw the norms of the weight error, a row for each layer; 1 is marked."""

    def draw(figure: Figure) -> None:
        _norms(figure, analysis, figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.08}), 3)

    return svg_file(draw, 1.2 + 0.4 * len(analysis.layers), _spoken_norms(analysis))


def lipschitz_figure(analysis: Analysis, key: str) -> Markup:
    """Draw the same for a page, the two norms one below the other; `key` as in `page_svg`."""

    def draw(figure: Figure) -> None:
        _norms(figure, analysis, figure.subplots(2, 1), 1)

    return page_svg(key, draw, 1.9 + 0.7 * len(analysis.layers), _spoken_norms(analysis))


def _norms(figure: Figure, analysis: Analysis, grid: Sequence[Axes], columns: int) -> None:
    names = [layer.name for layer in analysis.layers]
    panels = (("p = 2", "spectral"), ("p = infinity (logarithmic)", "infinity"))
    for axes, (title, field) in zip(grid, panels, strict=True):
        for place, (form, label) in enumerate(
            (("", "unfolded matrix"), ("operator_", "operator on the layer's input size"))
        ):
            values = [getattr(layer.lipschitz, f"{form}{field}") for layer in analysis.layers]
            _dots(axes, values, place, label)
        axes.axvline(1.0, color=MUTED, linewidth=1.0, linestyle=_DASHES)
        axes.set_xlabel(f"|dW|, {title}")
        _named(axes, names)
    grid[0].set_xlim(left=0.0, right=max(1.05, grid[0].get_xlim()[1]))
    if any(layer.lipschitz.infinity > 0 for layer in analysis.layers):
        _logarithmic(grid[1], lambda norm, _: f"{norm:g}")
    _legend(figure, grid[0], columns)


def _spoken_norms(analysis: Analysis) -> str:
    spoken = "; ".join(
        f"{layer.name}: {layer.lipschitz.spectral:.3g} unfolded, {layer.lipschitz.operator_spectral:.3g} as operator"
        for layer in analysis.layers
    )
    return f"Lipschitz constants of the weight error, by layer; p = 2: {spoken}."


def weight_histogram(layer: QuantisedLayer) -> str:
    """Draw how the real weights of a layer lie between its levels, and how many are rounded to each.

    With one step the axis is that of the weights; with a step per channel each weight is divided by its own.
    """
    from matplotlib.ticker import FuncFormatter

    codes, step = layer.quantised.codes, layer.quantised.step
    one_step = step.ndim == 0
    scale = float(step) if one_step else 1.0
    values = (layer.weights if one_step else _in_steps(layer)).ravel()
    levels = layer.levels * scale
    counts = {int(code): int((codes == code).sum()) for code in layer.levels}
    low = min(float(values.min(initial=0.0)), float(levels[0]))
    high = max(float(values.max(initial=0.0)), float(levels[-1]))

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 2)})
        found, edges = np.histogram(values, bins=_BINS, range=(low, high))
        upper.stairs(found, edges, fill=True, color=SERIES[0])
        if len(levels) <= _MOST_LINES:
            for level in levels:
                upper.axvline(level, color=INK, linewidth=0.7, linestyle=_DASHES)
        upper.set_ylabel("real weights")
        width = 0.6 * float(np.diff(levels).min()) if len(levels) > 1 else 0.6 * scale
        lower.bar(levels, list(counts.values()), width=width, color=SERIES[1])
        lower.set_ylabel("rounded to the level")
        for axes in (upper, lower):
            axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.0f}"))
            axes.grid(axis="y")
            axes.set_axisbelow(True)
        unit = "weight" if one_step else "weight, in steps of its channel"
        lower.set_xlabel(f"{unit} (dashed: the {len(levels)} levels)")
        mapped = "" if layer.mapping is None else f"; {layer.mapping}"
        upper.set_title(f"{layer.name}: {layer.options}{mapped}", loc="left", fontsize="medium")

    if len(counts) <= _MOST_LINES:
        spoken = ", ".join(f"{code}: {count:,}" for code, count in counts.items())
    else:
        spoken = f"{len(counts)} levels from {min(counts)} to {max(counts)}"
    return svg_file(
        draw,
        4.2,
        f"Histogram of the {values.size:,} weights of {layer.name}, and how many per level. {spoken}.",
    )


def _in_steps(layer: QuantisedLayer) -> np.ndarray:
    """W / step, channel by channel."""
    shape = [1] * layer.weights.ndim
    shape[layer.quantised.axis or 0] = -1
    return np.asarray(layer.weights / layer.quantised.step.astype(np.float64).reshape(shape))


def _dots(axes: Axes, values: Sequence[float | None], place: int, label: str) -> None:
    """Draw a series of dots, a row for each layer; what is 0 or unknown has none."""
    points = [(value, row + 0.2 * (place - 0.5)) for row, value in enumerate(values) if value]
    axes.plot(
        [value for value, _ in points],
        [row for _, row in points],
        MARKERS[place],
        color=SERIES[place],
        markersize=4.5,
        label=label,
    )


def _logarithmic(axes: Axes, words: Callable[[float, int], str]) -> None:
    """Make the horizontal axis logarithmic, with labels that need no mathematical type."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    few = high / low > _WIDE
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if few else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(words))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _rows(figure: Figure, axes: Axes, names: Sequence[str], columns: int) -> None:
    _named(axes, names)
    _legend(figure, axes, columns)


def _named(axes: Axes, names: Sequence[str]) -> None:
    shown = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
    axes.set_yticks(range(len(names)), shown)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handletextpad=0.2)


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.3g} %"
