"""Line charts as SVG, for documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 720, 360, 60, 30, 50, 170
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
TICKS = 5


def draw_lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    labels: tuple[str, str],
    marks: Mapping[str, float] | None = None,
) -> str:
    """The chart of named lines of points (x, y).

    labels: of both axes. marks: vertical lines at x, by their text.
    """
    points = [point for line in series.values() for point in line]
    x_min, x_max = min(x for x, _ in points), max(x for x, _ in points)
    y_min, y_max = min(y for _, y in points), max(y for _, y in points)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_min) / ((x_max - x_min) or 1)
        up = (y - y_min) / ((y_max - y_min) or 1)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _write(LEFT, 18, title, size=14),
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#444444"/>',
        _write((LEFT + right) / 2, HEIGHT - 12, labels[0], "middle"),
        _write(14, TOP - 8, labels[1]),
    ]
    for tick in range(TICKS + 1):
        x = x_min + (x_max - x_min) * tick / TICKS
        y = y_min + (y_max - y_min) * tick / TICKS
        parts.append(_write(place(x, y_min)[0], bottom + 18, f"{x:.4g}", "middle"))
        parts.append(_write(LEFT - 6, place(x_min, y)[1] + 4, f"{y:.3g}", "end"))
    for text, x in (marks or {}).items():
        across = place(x, y_min)[0]
        parts.append(f'<path d="M{across:.1f} {TOP}V{bottom}" stroke="#888888" {_DASHES}/>')
        parts.append(_write(across + 4, TOP + 12, text))
    for number, (name, line) in enumerate(series.items()):
        color = COLORS[number % len(COLORS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        y = TOP + 18 * number
        parts.append(f'<path d="M{right + 10} {y}h20" stroke="{color}" stroke-width="3"/>')
        parts.append(_write(right + 36, y + 4, name))
    return "\n".join([*parts, "</svg>", ""])


_DASHES = 'stroke-dasharray="4 3"'


def _write(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(text)}</text>"
    )
