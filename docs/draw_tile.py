"""Draws `tile.svg`: how one tile flows through the kernel, on an example small enough to show every number.

    python docs/draw_tile.py

The example: a 3x3 convolution of a map of 8 channels and 6 x 4 pixels into 32 channels, and the maximum over 2x2
windows. A tile of VNNI, 12 rows by 2 panels, is then the upper half of the map. The numbers below are those that
`kernels.conv_maps` computes; tests/test_docs.py holds them to it.
"""

from __future__ import annotations

from pathlib import Path

CHANNELS, HEIGHT, WIDTH, TAPS, OUTPUTS, POOL = 8, 4, 6, 3, 32, 2
ROWS, PANELS, COLUMNS, STEP = 12, 2, 16, 64

ROW_BYTES = (1 + WIDTH + 1) * CHANNELS
OUT_WIDTH, OUT_HEIGHT = WIDTH // POOL, HEIGHT // POOL
OUT_ROW_BYTES = (1 + OUT_WIDTH + 1) * OUTPUTS
SEGMENTS = [tap * ROW_BYTES for tap in range(TAPS)]
DEPTH = TAPS * CHANNELS // 4
# Positions of one pooling window after another.
POSITIONS = [(y, POOL * x + i) for x in range(OUT_WIDTH) for y in range(POOL) for i in range(POOL)]
STARTS = [y * ROW_BYTES + x * CHANNELS for y, x in POSITIONS]
OUT_STARTS = [OUT_ROW_BYTES + OUTPUTS * (1 + x) for x in range(OUT_WIDTH)]

SIZE = (1300, 965)
INK, PALE, LINE, PAPER, PAD = "#1f2328", "#57606a", "#8c959f", "#ffffff", "#e4e7eb"
SEGMENT_FILLS, SEGMENT_LINES = ("#cfe3fb", "#ffdfb8", "#cdeccf"), ("#1f6fc5", "#b8690a", "#2b8037")
SUM_FILL, CODE_FILL = "#eee4fb", "#f9d4da"
SUM_LINE, CODE_LINE = "#7544b8", "#b3283f"


class Drawing:
    """Elements of an SVG, in the order in which they are drawn."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def box(
        self, x: float, y: float, w: float, h: float, fill: str, line: str = LINE, width: float = 1
    ) -> None:
        """A rectangle."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="{fill}" stroke="{line}" '
            f'stroke-width="{width:g}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float = 14,
        *,
        anchor: str = "start",
        ink: str = INK,
        code: bool = False,
        bold: bool = False,
    ) -> None:
        """A line of text; y is its base line."""
        family = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" if code else "sans-serif"
        weight = ' font-weight="bold"' if bold else ""
        escaped = words.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-family="{family}" font-size="{size:g}" text-anchor="{anchor}" '
            f'fill="{ink}"{weight}>{escaped}</text>'
        )

    def lines(self, x: float, y: float, words: list[str], size: float = 13, gap: float = 18) -> None:
        """Lines of small text."""
        for number, line in enumerate(words):
            self.text(x, y + gap * number, line, size, ink=PALE)

    def title(self, x: float, y: float, number: int, words: str) -> None:
        """The numbered head of a part."""
        self.parts.append(f'<circle cx="{x + 13:g}" cy="{y - 6:g}" r="13" fill="{INK}"/>')
        self.text(x + 13, y - 1, str(number), 15, anchor="middle", ink=PAPER, bold=True)
        self.text(x + 34, y, words, 16, bold=True)

    def path(
        self, points: list[tuple[float, float]], line: str = INK, *, head: bool = True, dash: bool = False
    ) -> None:
        """A line through points, with an arrow's head at its end."""
        track = " ".join(f"{x:g},{y:g}" for x, y in points)
        marker = ' marker-end="url(#head)"' if head else ""
        dashes = ' stroke-dasharray="4 4"' if dash else ""
        self.parts.append(
            f'<polyline points="{track}" fill="none" stroke="{line}" stroke-width="1.6"{marker}{dashes}/>'
        )

    def svg(self) -> str:
        """The whole document."""
        width, height = SIZE
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label="How one tile flows through the kernel">\n'
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
            f'orient="auto-start-reverse"><path d="M0,0 L10,5 L0,10 z" fill="{INK}"/></marker></defs>\n'
            # A ground of its own: a viewer's dark background does not show through.
            f'<rect width="{width}" height="{height}" rx="12" fill="{PAPER}"/>\n'
        )
        return head + "\n".join(self.parts) + "\n</svg>\n"


def draw_input(d: Drawing, x: float, y: float) -> None:
    """The padded map, with the window of row 0, and where every pixel starts."""
    d.title(x, y, 1, "Input map: channels last, padded")
    cell, top = 40, y + 16
    for row in range(HEIGHT + 2):
        for column in range(WIDTH + 2):
            inside = 1 <= row <= HEIGHT and 1 <= column <= WIDTH
            fill = PAPER if inside else PAD
            if row < TAPS and column < TAPS:
                fill = SEGMENT_FILLS[row]
            d.box(x + cell * column, top + cell * row, cell, cell, fill)
            offset = str(row * ROW_BYTES + column * CHANNELS)
            d.text(
                x + cell * (column + 0.5), top + cell * (row + 0.62), offset, 12, anchor="middle", code=True
            )
    for row in range(TAPS):
        d.box(x, top + cell * row, TAPS * cell, cell, "none", SEGMENT_LINES[row], 2.5)
    below = top + cell * (HEIGHT + 2) + 20
    d.lines(
        x,
        below,
        [
            f"A square is a pixel: {CHANNELS} codes (uint8), and the byte",
            "at which they start. Grey is padding: it holds the",
            "code of zero. Coloured: the window of row 0; one",
            "kernel row is one segment of 24 codes.",
        ],
    )


def draw_tables(d: Drawing, x: float, y: float) -> None:
    """Starts of rows and segments."""
    d.title(x, y, 2, "Tables")
    top = y + 38
    d.text(x, top - 8, "starts[r]", 14, code=True)
    d.text(x + 118, top - 8, "segments[s]", 14, code=True)
    cell = 20
    for row, start in enumerate(STARTS):
        gap = 5 * (row // POOL**2)
        d.box(x + 24, top + cell * row + gap, 58, cell, CODE_FILL, CODE_LINE)
        d.text(x + 18, top + cell * row + gap + 15, str(row), 12, anchor="end", ink=PALE)
        d.text(x + 76, top + cell * row + gap + 15, str(start), 13, anchor="end", code=True)
    for index, start in enumerate(SEGMENTS):
        d.box(x + 142, top + 22 * index, 58, 22, SEGMENT_FILLS[index], SEGMENT_LINES[index])
        d.text(x + 136, top + 22 * index + 16, str(index), 12, anchor="end", ink=PALE)
        d.text(x + 194, top + 22 * index + 16, str(start), 13, anchor="end", code=True)
    d.lines(
        x + 104,
        top + 100,
        ["four rows are", "one 2x2 window,", "side by side", "", "nothing is copied:", "a code is read at"],
    )
    d.text(x + 104, top + 212, "starts[r]", 13, code=True)
    d.text(x + 104, top + 230, "+ segments[s] + k", 13, code=True)


def draw_weights(d: Drawing, x: float, y: float) -> None:
    """Packed weights, and one step of them."""
    d.title(x, y, 3, "Weights: packed once")
    d.text(x + 290, y, "[panel][segment][k / 4][16][4]", 14, code=True)
    cell, top = 26, y + 20
    for panel in range(PANELS):
        row = top + 40 * panel
        d.text(x, row + 18, f"panel {panel}", 13)
        for block in range(TAPS * DEPTH):
            segment = block // DEPTH
            left = x + 66 + cell * block + 5 * segment
            d.box(left, row, cell, 26, SEGMENT_FILLS[segment], SEGMENT_LINES[segment])
            d.text(left + cell / 2, row + 17, str(block % DEPTH), 11, anchor="middle", code=True)
    # One step, enlarged.
    zoom_x, zoom_y, wide, high = x + 66, top + 112, 25, 24
    for column in range(COLUMNS):
        for k in range(4):
            d.box(
                zoom_x + wide * column, zoom_y + high * k, wide, high, SEGMENT_FILLS[0], SEGMENT_LINES[0], 0.6
            )
            byte = str(4 * column + k)
            place = zoom_x + wide * (column + 0.5), zoom_y + high * (k + 0.68)
            d.text(*place, byte, 11, anchor="middle", code=True)
    block_x, block_y = x + 66 + cell * 2, top + 66
    d.path([(block_x, block_y), (zoom_x, zoom_y)], SEGMENT_LINES[0], head=False, dash=True)
    d.path(
        [(block_x + cell, block_y), (zoom_x + wide * COLUMNS, zoom_y)],
        SEGMENT_LINES[0],
        head=False,
        dash=True,
    )
    for k in range(4):
        d.text(
            zoom_x - 8, zoom_y + high * (k + 0.68), "k" if k == 0 else f"k+{k}", 12, anchor="end", code=True
        )
    d.text(zoom_x + wide * COLUMNS + 10, zoom_y + 18, "byte of", 12, ink=PALE)
    d.text(zoom_x + wide * COLUMNS + 10, zoom_y + 34, "the block", 12, ink=PALE)
    d.lines(
        zoom_x,
        zoom_y + 4 * high + 20,
        [
            "A block holds 4 k of 16 columns, 64 bytes: one AVX-512 register,",
            "two of AVX2, one row of an AMX tile. 6 blocks are a segment's 24 k.",
        ],
    )


def draw_tile(d: Drawing, x: float, y: float) -> None:
    """The sums, and what is loaded for one step."""
    d.title(x, y, 4, "Tile: 12 rows x 2 panels of int32 sums, in registers")
    lane, high, left, top = 14, 22, x + 132, y + 76
    panel_width = lane * COLUMNS + 14
    for panel in range(PANELS):
        begin = left + panel_width * panel
        d.text(begin, top - 42, f"w: 64 bytes of panel {panel}", 13)
        for column in range(COLUMNS):
            d.box(begin + lane * column, top - 34, lane, 20, SEGMENT_FILLS[0], SEGMENT_LINES[0])
    d.text(x, top - 20, "x: 4 codes,", 13)
    d.text(x, top - 4, "in every lane", 13)
    for row in range(ROWS):
        line = top + (high + 1) * row + 5 * (row // POOL**2)
        d.text(x + 16, line + 16, str(row), 12, anchor="end", ink=PALE)
        for byte in range(4):
            d.box(x + 24 + 22 * byte, line, 22, high, CODE_FILL, CODE_LINE)
        for panel in range(PANELS):
            for column in range(COLUMNS):
                d.box(left + panel_width * panel + lane * column, line, lane, high, SUM_FILL, SUM_LINE, 0.7)
    right = left + 2 * panel_width - 8
    for window in range(ROWS // POOL**2):
        first = top + ((high + 1) * POOL**2 + 5) * window
        d.path(
            [(right, first), (right + 8, first), (right + 8, first + 91), (right, first + 91)],
            PALE,
            head=False,
        )
        d.text(right + 14, first + 43, "window", 12, ink=PALE)
        d.text(right + 14, first + 58, str(window), 12, ink=PALE)
    bottom = top + (high + 1) * ROWS + 34
    d.text(x, bottom, "sum[r][c] += x[4 codes of row r] . w[4 k of column c]", 13.5, code=True)
    d.lines(
        x,
        bottom + 22,
        [
            "vpdpbusd: 64 products, exact in int32. One step of 4 k: 12 broadcast loads, 2 loads of weights,",
            "24 multiplications, on 27 of 32 registers. 18 steps (3 segments of 6), then the drain.",
        ],
    )


def draw_drain(d: Drawing, x: float, y: float) -> None:
    """What becomes of sums."""
    d.title(x, y, 5, "Drain, from registers")
    steps = [
        ("maximum of a window's 4 rows", "acc = max(sum[r], ..., sum[r + 3])", SUM_FILL, SUM_LINE),
        ("one float32 product", "f = float32(acc) * M[c]", "#fff3bf", "#8a6d00"),
        ("rounding, half to even, by adding", "bits(f + 1.5 * 2^23)", "#fff3bf", "#8a6d00"),
        ("zero point, saturated to 0..255", "code = clip(low bits + z)", CODE_FILL, CODE_LINE),
        ("16 codes of a panel: one store", "out_starts[r / 4] + column", CODE_FILL, CODE_LINE),
    ]
    top = y + 20
    for number, (words, formula, fill, line) in enumerate(steps):
        place = top + 70 * number
        d.box(x, place, 284, 48, fill, line)
        d.text(x + 10, place + 19, words, 13)
        d.text(x + 10, place + 38, formula, 13, code=True)
        if number:
            d.path([(x + 142, place - 22), (x + 142, place - 1)])


def draw_output(d: Drawing, x: float, y: float) -> None:
    """The next layer's input."""
    d.title(x, y, 6, "Next layer's map")
    cell, top = 44, y + 16
    for row in range(OUT_HEIGHT + 2):
        for column in range(OUT_WIDTH + 2):
            inside = 1 <= row <= OUT_HEIGHT and 1 <= column <= OUT_WIDTH
            written = inside and row == 1
            fill = CODE_FILL if written else PAPER if inside else PAD
            d.box(x + cell * column, top + cell * row, cell, cell, fill, CODE_LINE if written else LINE)
            offset = str(row * OUT_ROW_BYTES + column * OUTPUTS)
            d.text(
                x + cell * (column + 0.5), top + cell * (row + 0.6), offset, 12, anchor="middle", code=True
            )
    below = top + cell * (OUT_HEIGHT + 2) + 20
    d.lines(
        x,
        below,
        [
            f"{OUTPUTS} channels a pixel. Red: what",
            "this tile writes. The padding",
            "is there before: filled once,",
            "or before every chunk where",
            "the map shares its memory.",
        ],
    )


def draw() -> str:
    """The picture."""
    d = Drawing()
    d.text(44, 40, "One tile, from padded map to padded map", 22, bold=True)
    d.text(
        44,
        64,
        "Example: 3x3 convolution, 8 to 32 channels, on 6 x 4 pixels, then a maximum over 2x2. The tile: one half.",
        14,
        ink=PALE,
    )
    draw_input(d, 44, 110)
    draw_tables(d, 410, 110)
    draw_weights(d, 680, 110)
    draw_tile(d, 44, 520)
    draw_drain(d, 740, 520)
    draw_output(d, 1060, 520)
    # From part to part.
    d.path([(364, 245), (404, 245)])
    d.path([(463, 408), (463, 480), (20, 480), (20, 734), (42, 734)])
    d.path([(746, 420), (746, 480), (610, 480), (610, 558)])
    d.path([(708, 640), (724, 640), (724, 564), (737, 564)])
    d.path([(1024, 844), (1042, 844), (1042, 692), (1057, 692)])
    return d.svg()


if __name__ == "__main__":
    Path(__file__).with_name("tile.svg").write_text(draw(), encoding="utf-8")
