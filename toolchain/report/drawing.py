"""How drawings are made: by matplotlib, in stand-in colours that become a page's own or, in a file, fixed ones."""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

__all__ = ["INK", "MARKERS", "MUTED", "RULE", "SERIES", "page_svg", "svg_file"]

INK, MUTED, RULE = "#010101", "#020202", "#030303"
SERIES = ("#040404", "#050505", "#060606", "#070707")
MARKERS = ("o", "s", "D", "^")
_ON_A_PAGE = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES, start=1)},
}
# The light colours of page.css: a file does not know what it is shown on, and brings its own paper.
_PAPER = "#ffffff"
_IN_A_FILE = {
    INK: "#1b2128",
    MUTED: "#57616c",
    RULE: "#d5dbe1",
    **dict(zip(SERIES, ("#0a58a6", "#bf5310", "#237a57", "#7a4aa0"), strict=True)),
}
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ohmfold",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "ytick.major.size": 0.0,
    "xtick.major.size": 3.0,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}
_WIDTH, _PAGE_WIDTH = 8.0, 4.8
"""Inches, of a file and on a page; a page scales the drawing, and on a telephone type stays large enough to read."""


def page_svg(key: str, draw: Callable[[Figure], None], height: float, label: str) -> Markup:
    """Draw and return an SVG element for a page, in the page's colours.

    Args:
        key: What its ids begin with, so that several fit one page.
        draw: Draws on a figure, in this module's colours.
        height: Inches.
        label: What the drawing shows, in words.
    """
    text = _drawn(draw, height, _PAGE_WIDTH)
    box = re.search(r'viewBox="([^"]+)"', text)
    body = text[text.index(">") + 1 :]
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = _coloured(body, _ON_A_PAGE)
    opening = f'<svg class="chart" role="img" aria-label="{escape(label)}" viewBox="{box[1] if box else ""}">'
    titles = f"<title>{escape(label.partition('. ')[0])}</title><desc>{escape(label)}</desc>"
    return Markup(opening + titles + body.strip())  # noqa: S704 - matplotlib escapes its text


def svg_file(draw: Callable[[Figure], None], height: float, label: str) -> str:
    """Draw and return the text of an SVG file; arguments as in `page_svg`."""
    text = _drawn(draw, height, _WIDTH)
    end = text.index(">")
    opening = f'{text[:end]} role="img" aria-label="{escape(label)}">'
    paper = f'<rect width="100%" height="100%" fill="{_PAPER}"/>'
    return _coloured(f"{opening}\n {paper}{text[end + 1 :]}", _IN_A_FILE)


def _coloured(text: str, theme: dict[str, str]) -> str:
    for stand_in, colour in theme.items():
        text = text.replace(stand_in, colour)
    return text


def _drawn(draw: Callable[[Figure], None], height: float, width: float) -> str:
    """Draw and return an SVG element in stand-in colours, without metadata."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn = io.StringIO()
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        mpl.rcdefaults()
        settings: Any = mpl.rcParams
        settings.update(_SETTINGS)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        unsaid = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=unsaid)
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
