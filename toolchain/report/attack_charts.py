"""Charts of a campaign of attacks, as SVG files: accuracy against epsilon, and images that were turned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .drawing import INK, MARKERS, SERIES, page_svg, svg_file
from .pictures import chosen_examples, shown_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from ..attacks.outcome import AttackResult
    from ..attacks.results import CampaignResult, Share

__all__ = ["accuracy_chart", "accuracy_figure", "gallery_chart"]

_WORST = "worst case of each image"
_LINES = ("-", (0, (4, 2)), (0, (1, 1.5)))
_ATTACKS, _EXAMPLES = 3, 8
_BLOCK = 2.8
"""Inches of an attack's three rows."""

_PITCH = 1.25
"""From a picture to the next, in pictures."""


def accuracy_chart(result: CampaignResult) -> str | None:
    """Draw accuracy against epsilon, a line for each attack that ran at several radii, with Wilson intervals.

    Returns:
        The text of an SVG file; None where no attack of the campaign's norm ran at two radii.
    """
    lines = _lines(result)
    if not lines:
        return None
    verdict = "" if result.verdict is None else f"Masking verdict: {result.verdict.label}."

    def draw(figure: Figure) -> None:
        _against_radius(figure, result, lines, columns=3)
        if verdict:
            figure.axes[0].set_title(verdict, loc="left", fontsize="medium")

    return svg_file(draw, 4.4, f"{_words(lines)} {verdict}".strip())


def accuracy_figure(result: CampaignResult, key: str) -> Markup | None:
    """Draw the same for a page, beside which the verdict stands; `key` as in `page_svg`."""
    lines = _lines(result)
    if not lines:
        return None
    return page_svg(key, lambda figure: _against_radius(figure, result, lines, columns=2), 3.9, _words(lines))


def _lines(result: CampaignResult) -> dict[str, dict[float, Share]]:
    """What is left at each radius, the worst case of every image last; nothing of fewer than two radii."""
    lines: dict[str, dict[float, Share]] = {}
    for row in result.attacks:
        if row.norm == result.norm:
            name = row.name if row.source in ("twin", "queries", "none") else f"{row.name}, {row.source}"
            lines.setdefault(name, {})[row.radius] = row.left
    lines = {name: points for name, points in lines.items() if len(points) > 1}
    worst = {row.radius: row.left for row in result.worst_case if row.norm == result.norm}
    if lines and len(worst) > 1:
        lines[_WORST] = worst
    return lines


def _words(lines: dict[str, dict[float, Share]]) -> str:
    spoken = "; ".join(f"{name}: {_spoken(points)}" for name, points in lines.items())
    return f"Accuracy against the radius in pixel codes. {spoken}."


def _against_radius(
    figure: Figure, result: CampaignResult, lines: dict[str, dict[float, Share]], columns: int
) -> None:
    axes = figure.subplots()
    for place, (name, points) in enumerate(lines.items()):
        _line(axes, name, {0.0: result.clean, **points}, place)
    axes.set_ylim(-2, 102)
    axes.set_xlim(left=0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel(f"radius in pixel codes, norm {result.norm}")
    axes.set_ylabel(f"accuracy on {result.clean.images:,} images, percent")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handletextpad=0.5)


def _spoken(points: dict[float, Share]) -> str:
    return ", ".join(f"{100 * points[radius].accuracy:.1f} % at {radius:g}" for radius in sorted(points))


def _line(axes: Axes, name: str, points: dict[float, Share], place: int) -> None:
    radii = sorted(points)
    shares = [100 * points[radius].accuracy for radius in radii]
    ends = [(100 * points[radius].low, 100 * points[radius].high) for radius in radii]
    strongest = name == _WORST
    axes.errorbar(
        radii,
        shares,
        yerr=(
            [max(0.0, share - low) for share, (low, _) in zip(shares, ends, strict=True)],
            [max(0.0, high - share) for share, (_, high) in zip(shares, ends, strict=True)],
        ),
        color=INK if strongest else SERIES[place % len(SERIES)],
        marker=MARKERS[place % len(MARKERS)],
        linestyle=_LINES[place // len(SERIES) % len(_LINES)],
        linewidth=2.0 if strongest else 1.3,
        elinewidth=0.9,
        markersize=4.0,
        label=name,
    )


def gallery_chart(results: Sequence[tuple[str, AttackResult]]) -> str | None:
    """Draw images that attacks turned: before, after, and the difference magnified, of the first few attacks that did.

    Args:
        results: Keys and results.

    Returns:
        The text of an SVG file; None where nothing was turned, or images are not pictures `(N, C, H, W)`.
    """
    shown = []
    for key, result in results:
        places = chosen_examples(result)[:_EXAMPLES]
        if len(places) and result.original.ndim == 4 and result.original.shape[1] in (1, 3):
            shown.append((key, result, places))
    shown = shown[:_ATTACKS]
    if not shown:
        return None

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for axes, (key, result, places) in zip(grid, shown, strict=True):
            _block(axes, key, result, places)

    spoken = "; ".join(f"{key}: {len(places)} images that it turned" for key, _, places in shown)
    label = f"Images before and after attacks, and the difference. {spoken}."
    return svg_file(draw, _BLOCK * len(shown), label)


def _block(axes: Axes, key: str, result: AttackResult, places: NDArray[np.int64]) -> None:
    """Three rows of pictures of one attack, each of a size of 1 by 1 in the units of the axes."""
    difference, largest = shown_difference(result.adversarial[places], result.original[places])
    rows = (result.original[places], result.adversarial[places], difference)
    seen: tuple[NDArray[np.int64] | None, ...]
    seen = (result.clean_predictions[places], result.predictions[places], None)
    names = ("original, seen as", "adversarial, seen as", f"difference, ± {largest} codes")
    for row, (pictures, labels, name) in enumerate(zip(rows, seen, names, strict=True)):
        top = row * _PITCH
        axes.text(-0.15, top + 0.5, name, ha="right", va="center", fontsize=8)
        for column, picture in enumerate(pictures):
            left = column * _PITCH
            axes.imshow(
                _picture(picture),
                cmap="gray",
                vmin=0,
                vmax=255,
                interpolation="none",
                extent=(left, left + 1, top + 1, top),
            )
            if labels is not None:
                axes.text(left + 0.5, top - 0.03, str(labels[column]), ha="center", va="bottom", fontsize=8)
    axes.set_xlim(-2.1, _EXAMPLES * _PITCH)
    axes.set_ylim(3 * _PITCH, -0.35)
    axes.set_title(key, loc="left", fontsize="medium")
    axes.set_aspect("equal")
    axes.axis("off")


def _picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What matplotlib shows: `(H, W)`, or `(H, W, 3)`."""
    return image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
