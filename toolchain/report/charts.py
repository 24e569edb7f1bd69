"""Charts of a report as inline SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from ..analysis.intervals import wilson
from .accuracy import MODELS
from .drawing import MARKERS, MUTED, SERIES, page_svg
from .words import number, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..run_record import ArtifactRecord, AttackRow, LayerRow, RunRecord
    from .accuracy import Accuracy

__all__ = ["accuracy_chart", "attack_chart", "layer_chart", "level_bars"]

_LONGEST_NAME = 26
_BAR_WIDTH, _BAR_HEIGHT = 96, 28


def accuracy_chart(rows: Sequence[Accuracy]) -> Markup | None:
    """Draw accuracy from float to integers to a crossbar, a row each, with intervals; None without figures."""
    rows = [row for row in rows if row.images]
    if not rows:
        return None
    variants = list(dict.fromkeys(row.variant for row in rows))
    labels = list(dict.fromkeys(row.stage for row in sorted(rows, key=lambda row: MODELS.index(row.model))))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, variant in enumerate(variants):
            own = [row for row in rows if row.variant == variant]
            _whiskers(
                axes,
                [labels.index(row.stage) + _offset(place, len(variants)) for row in own],
                [(100 * row.share, 100 * row.low, 100 * row.high) for row in own],
                place,
                variant,
            )
        _rows(axes, labels)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -2), min(high, 100 + 0.05 * (100 - low)))
        axes.set_xlabel("images right, percent (bars: intervals)")
        _legend(figure, axes, len(variants))

    spoken = "; ".join(f"{row.variant}, {row.stage}: {100 * row.share:.2f} %" for row in rows)
    height = 0.9 + (0.22 + 0.16 * len(variants)) * len(labels)
    return page_svg("accuracy", draw, height, f"Accuracy from float to hardware. {spoken}.")


def attack_chart(record: RunRecord, key: str = "attacks") -> Markup | None:
    """Draw what each attack left, with Wilson intervals; None without attacks; `key` as in `page_svg`."""
    rows = [row for row in record.attacks if row.images]
    if not rows:
        return None
    settings = list(dict.fromkeys(_setting(row) for row in rows))
    variants = list(dict.fromkeys(row.variant for row in rows))
    labels = ["no attack", *(f"{name}, {epsilon} codes" for name, epsilon in settings)]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, variant in enumerate(variants):
            own = [row for row in rows if row.variant == variant]
            points = [(0, own[0].clean_correct, own[0].images)]
            points += [(1 + settings.index(_setting(row)), row.correct, row.images) for row in own]
            _shares(axes, points, place, len(variants), variant)
        _rows(axes, labels)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("images still right, percent (bars: 95 % intervals)")
        _legend(figure, axes, len(variants))

    spoken = "; ".join(
        f"{row.variant} under {row.attack}: {percent(row.correct, row.images)}" for row in rows
    )
    height = 0.9 + (0.22 + 0.16 * len(variants)) * len(labels)
    return page_svg(key, draw, height, f"Accuracy under attack. {spoken}.")


def _setting(row: AttackRow) -> tuple[str, float]:
    return row.attack, row.epsilon_codes


def _shares(axes: Axes, points: Sequence[tuple[int, int, int]], place: int, series: int, label: str) -> None:
    """Draw (row, correct, images) as dots with whiskers, next to those of the other series."""
    _whiskers(
        axes,
        [row + _offset(place, series) for row, _, _ in points],
        [
            tuple(100 * share for share in (correct / images, *wilson(correct, images)))
            for _, correct, images in points
        ],
        place,
        label,
    )


def _whiskers(
    axes: Axes, rows: Sequence[float], values: Sequence[tuple[float, ...]], place: int, label: str
) -> None:
    """Draw (share, low, high), in percent, as dots with whiskers."""
    axes.errorbar(
        [share for share, _, _ in values],
        rows,
        xerr=(
            [max(0.0, share - low) for share, low, _ in values],
            [max(0.0, high - share) for share, _, high in values],
        ),
        fmt=MARKERS[place % len(MARKERS)],
        color=SERIES[place % len(SERIES)],
        markersize=4.5,
        elinewidth=1.2,
        label=_short(label),
    )


def layer_chart(artifacts: Sequence[ArtifactRecord]) -> Markup | None:
    """Draw, layer by layer, the spectral norm of the weight error and the activations' signal-to-error ratio.

    Returns:
        The chart of what is known of either; None where nothing is.
    """
    panels: list[tuple[str, Callable[[LayerRow], float | None]]] = [
        ("spectral norm of the weight error (1 marked)", lambda row: row.spectral_error),
        ("activation signal to error, dB", lambda row: row.activation_snr_db),
    ]
    known = [
        (title, value)
        for title, value in panels
        if any(value(row) is not None for artifact in artifacts for row in artifact.layers)
    ]
    if not known:
        return None
    names = list(dict.fromkeys(row.name for artifact in artifacts for row in artifact.layers))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(len(known), 1, squeeze=False)[:, 0]
        for axes, (title, value) in zip(grid, known, strict=True):
            for place, artifact in enumerate(artifacts):
                found = [(names.index(row.name), value(row)) for row in artifact.layers]
                points = [(row, x) for row, x in found if x is not None]
                axes.plot(
                    [x for _, x in points],
                    [row + _offset(place, len(artifacts)) for row, _ in points],
                    MARKERS[place % len(MARKERS)],
                    color=SERIES[place % len(SERIES)],
                    markersize=4.5,
                    label=_short(artifact.variant),
                )
            _rows(axes, names)
            axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
            axes.set_xlabel(title)
        if known[0][0] == panels[0][0]:
            grid[0].axvline(1.0, color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
            grid[0].set_xlim(right=max(1.05, grid[0].get_xlim()[1]))
        _legend(figure, grid[0], len(artifacts))

    titles = " and ".join(title for title, _ in known)
    label = f"Dot plot of {titles}, for {len(names)} layers; the tables below hold the figures."
    height = 0.4 + len(known) * (0.6 + (0.14 + 0.1 * len(artifacts)) * len(names))
    return page_svg("layers", draw, height, label)


def level_bars(row: LayerRow) -> Markup:
    """Draw how often each code occurs: one bar for each code that does, in ascending order."""
    width = _BAR_WIDTH / max(1, len(row.counts))
    gap = min(2.0, width / 5)
    tallest = max(row.counts, default=1)
    bars = "".join(
        f'<rect x="{i * width:.2f}" y="{_BAR_HEIGHT * (1 - count / tallest):.2f}" '
        f'width="{width - gap:.2f}" height="{_BAR_HEIGHT * count / tallest:.2f}"/>'
        for i, count in enumerate(row.counts)
    )
    pairs = list(zip(row.codes, row.counts, strict=False))
    if len(pairs) <= 16:
        spoken = ", ".join(f"{code}: {number(count)}" for code, count in pairs)
    else:
        spoken = f"{len(pairs)} codes from {row.codes[0]} to {row.codes[-1]}"
    label = escape(f"Weights of {row.name} per code. {spoken}")
    return Markup(  # noqa: S704 - numbers and escaped text alone
        f'<svg class="levels" role="img" aria-label="{label}" viewBox="0 0 {_BAR_WIDTH} {_BAR_HEIGHT}" '
        f'width="{_BAR_WIDTH}" height="{_BAR_HEIGHT}">{bars}</svg>'
    )


def _offset(place: int, series: int) -> float:
    """Return where a series lies within a row of height 1."""
    return 0.0 if series == 1 else 0.5 * (place / (series - 1) - 0.5)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), [_short(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _legend(figure: Figure, axes: Axes, series: int) -> None:
    if series > 1:
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=min(series, 2), handletextpad=0.2)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"
