"""Charts of a study of chips, as SVG files: how accuracies are distributed, and how they follow a swept field."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, log
from typing import TYPE_CHECKING, Any

from ..hardware import shown
from .drawing import INK, SERIES, page_svg, svg_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..chips import ChipStudy, Point

__all__ = ["distribution_chart", "study_figure", "sweep_chart"]

_CHIPS, _MEAN = SERIES[0], SERIES[1]
_DASHES = (0, (4, 3))
_MOST_BARS, _LEAST_BARS = 40, 12
_MOST_TICKS = 14
# Values that span more than this factor are drawn on a logarithmic axis.
_WIDE = 50.0


def distribution_chart(study: ChipStudy) -> str:
    """Draw how many chips have which accuracy: a row of bars for each point of the study."""
    return svg_file(*_distribution(study, 4))


def study_figure(study: ChipStudy, key: str) -> Markup:
    """Draw a study for a page: the sweep where there is one, else the distribution; `key` as in `page_svg`."""
    return page_svg(key, *(_distribution(study, 2) if study.field is None else _sweep(study, 2)))


def _distribution(study: ChipStudy, columns: int) -> tuple[Callable[[Figure], None], float, str]:
    """What draws it, its height, and what it shows in words."""
    images, points = study.data.images, study.points
    every = [study.exact_correct, *(chip.correct for point in points for chip in point.chips)]
    low, high = min(every), max(every)
    width = max(1, ceil((high - low + 1) / _MOST_BARS))
    room = max(0, _LEAST_BARS * width - (high - low)) / 2 + width

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(points), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, point in zip(rows, points, strict=True):
            _bars(axes, point, high, width, images)
            axes.axvline(100 * point.mean, color=_MEAN, linewidth=2.2, label="mean of the chips")
            _exact_line(axes.axvline, study)
            _whole_numbers(axes)
            axes.set_title(_title(study, point), loc="left", fontsize="medium")
        axes = rows[-1]
        axes.set_xlim(
            100 * (low - room) / images, min(100 * (high + room), 100 * images + 60 * width) / images
        )
        axes.set_xlabel(f"accuracy on {images:,} images, percent")
        rows[len(rows) // 2].set_ylabel("chips")
        _legend(figure, axes, columns)

    figures = "; ".join(
        f"{_title(study, point)}: mean {_percent(point.mean)}, worst {_percent(point.worst.correct / images)} "
        f"(seed {point.worst.seed})"
        for point in points
    )
    exact = _percent(study.exact_correct / images)
    label = f"Distribution of accuracy. {figures}; exact integers: {exact}."
    return draw, 1.2 + (1.8 if len(points) == 1 else 0.9 * len(points)), label


def sweep_chart(study: ChipStudy) -> str:
    """Draw accuracy against the swept field: the mean of the chips, and bands that hold half and all of them."""
    return svg_file(*_sweep(study, 4))


def _sweep(study: ChipStudy, columns: int) -> tuple[Callable[[Figure], None], float, str]:
    images, points = study.data.images, study.points
    places, logarithmic = _places([point.value for point in points])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for name, alpha, ends in (
            ("all chips", 0.15, [(p.worst.correct / images, p.best.correct / images) for p in points]),
            ("half of the chips", 0.3, [(p.quantiles["0.25"], p.quantiles["0.75"]) for p in points]),
        ):
            low, high = ([100 * end for end in side] for side in zip(*ends, strict=True))
            axes.fill_between(places, low, high, color=_CHIPS, alpha=alpha, linewidth=0, label=name)
        means = [100 * point.mean for point in points]
        axes.plot(places, means, "o-", color=_CHIPS, markersize=4.5, linewidth=1.6, label="mean of the chips")
        _exact_line(axes.axhline, study)
        if logarithmic:
            axes.set_xscale("log")
        if _apart(places, logarithmic=logarithmic):
            axes.set_xticks(places, [shown(point.value) for point in points])
            axes.minorticks_off()
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        lowest, highest = axes.get_ylim()
        axes.set_ylim(max(lowest, -2.0), min(highest, 100.0 + 0.05 * (100.0 - lowest)))
        axes.set_xlabel(str(study.field))
        axes.set_ylabel(f"accuracy on {images:,} images, percent")
        _legend(figure, axes, columns)

    figures = "; ".join(f"{shown(point.value)}: mean {_percent(point.mean)}" for point in points)
    label = f"Accuracy of {study.count} chips of {study.hardware} against {study.field}. {figures}."
    return draw, 4.0, label


def _bars(axes: Axes, point: Point, highest: int, width: int, images: int) -> None:
    """Draw how many chips get so many images right; a bar stands for `width` numbers of images."""
    counts: dict[int, int] = {}
    for chip in point.chips:
        last = highest - (highest - chip.correct) // width * width
        counts[last] = counts.get(last, 0) + 1
    centres = [100 * (last - (width - 1) / 2) / images for last in counts]
    axes.bar(centres, list(counts.values()), width=90 * width / images, color=_CHIPS)


def _exact_line(line: Callable[..., object], study: ChipStudy) -> None:
    accuracy = 100 * study.exact_correct / study.data.images
    line(accuracy, color=INK, linewidth=1.0, linestyle=_DASHES, label="exact integers")


def _whole_numbers(axes: Axes) -> None:
    """Let the axis of numbers of chips have whole ones, few of them."""
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _places(values: Sequence[Any]) -> tuple[list[float], bool]:
    """Return where values lie along an axis, and whether it is logarithmic; others than numbers lie in a row."""
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if len(numbers) < len(values) or numbers != sorted(numbers):
        return [float(place) for place in range(len(values))], False
    return numbers, numbers[0] > 0 and numbers[-1] / numbers[0] > _WIDE


def _apart(places: Sequence[float], *, logarithmic: bool) -> bool:
    """Whether a label at each place leaves the others room."""
    spots = [log(place) for place in places] if logarithmic else places
    gaps = [after - before for before, after in pairwise(spots)]
    return not gaps or min(gaps) * _MOST_TICKS >= sum(gaps)


def _title(study: ChipStudy, point: Point) -> str:
    if study.field is not None:
        return f"{study.field} = {shown(point.value)}"
    return f"{study.count} {'chip' if study.count == 1 else 'chips'} of {study.hardware}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handletextpad=0.5)
