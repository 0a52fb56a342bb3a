"""The report of an evaluation as one HTML file, which needs nothing besides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from ddnn.runtime.new_directory import convert_write_errors
from ddnn.runtime.whole_file import write_whole

CELL_PX, MARGIN_PX = 46, 130
FEW_SAMPLES = 20  # of a class: its recall is hardly known

STYLE = """
:root { color-scheme: light dark; --line: #dfe4ea; --faint: #566270; --bar: #2f6fde; --bad: #bb2727;
  --mark: 47, 111, 222; }
@media (prefers-color-scheme: dark) { :root { --line: #29323d; --faint: #9aa7b5; --bar: #5f96fb;
  --bad: #ff8a82; --mark: 95, 150, 251; } }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 1.5rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.faint, small, td.faint { color: var(--faint); } p.warning { color: var(--bad); }
table { border-collapse: collapse; margin: 0 0 1rem; }
th, td { padding: 3px 14px 3px 0; text-align: left;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
td.bar { min-width: 10rem; padding-right: 0; }
td.bar span { display: block; height: 10px; border-radius: 3px; background: var(--bar); }
.scroll { overflow-x: auto; } svg text { fill: currentColor; font: 12px system-ui, sans-serif; }
""".strip()


def write_report(file: Path, name: str, figures: Mapping[str, Any]) -> None:
    """Write the figures of `ddnn evaluate` on a bundle; ConfigError where that fails."""
    with convert_write_errors(file):
        write_whole(file.absolute(), make_page(name, figures).encode())


def make_page(name: str, figures: Mapping[str, Any]) -> str:
    """The page of the figures."""
    title = f"ddnn: {name} ({figures['bundle']})"
    parts = [
        f"<h1>{escape(title)}</h1>",
        *_summarize(figures),
        "<h2>Classes</h2>",
        _make_class_table(figures),
        "<h2>What is taken for what</h2>",
        '<p class="faint">Rows are the true classes, columns the answers; shades are shares of a '
        "row.</p>",
        f'<div class="scroll">{draw_confusion(figures["classes"], figures["confusion"])}</div>',
        "<h2>Exits and bytes</h2>",
        _make_exit_table(figures),
        "<h2>Cameras</h2>",
        *_make_camera_tables(figures),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _summarize(figures: Mapping[str, Any]) -> list[str]:
    overall, majority = figures["accuracy"]["overall"], figures["majority"]
    low, high = figures["accuracy_interval"]
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    learned = figures["samples_learned_from"]
    if learned is None:
        seen = "; whether training has seen some of them, the bundle does not say"
    else:
        seen = f", {learned} of which training has seen" if learned else " not seen in training"
    lines = [
        f'<p class="faint">{figures["samples"]} samples{seen}; {now}. '
        "Intervals are Wilson's, of 95 %.</p>",
        f"<p><b>{_percent(overall)} right</b> ({_percent(low)} to {_percent(high)}). "
        f"Naming always the most frequent class: {_percent(majority)}.</p>",
    ]
    if learned:
        lines.append(
            '<p class="warning">The network has learned from some of these samples: the figures '
            "are too good.</p>"
        )
    if low <= majority:
        lines.append(
            '<p class="warning">This may be no better than naming always the most frequent class: '
            "give more samples, or train longer.</p>"
        )
    return lines


def _make_class_table(figures: Mapping[str, Any]) -> str:
    rows = []
    for label, row in zip(figures["classes"], figures["confusion"], strict=True):
        count = sum(row)
        if not count:
            rows.append([label, "0", "not measured", "", ""])
            continue
        share, (low, high) = figures["recall"][label], figures["recall_interval"][label]
        note = "few samples: record more" if count < FEW_SAMPLES else ""
        interval = f"{_percent(low)} to {_percent(high)}"
        rows.append([label, str(count), _percent(share), interval, note])
    heads = ["class", "samples", "found (recall)", "interval", ""]
    return _make_table(heads, rows, [figures["recall"].get(label) for label in figures["classes"]])


def _make_exit_table(figures: Mapping[str, Any]) -> str:
    rows = [
        [tier, _percent(share), _percent(figures["accuracy"].get(tier))]
        for tier, share in figures["exit_share"].items()
        if figures["accuracy"].get(tier) is not None
    ]
    return _make_table(["exit", "answers", "right, if it answered all"], rows) + (
        f"<p>{figures['bytes_per_sample_per_device']:.1f} bytes per sample and device; a raw image "
        f"has {figures['raw_bytes']}, as JPEG {figures['jpeg_bytes']:.0f}.</p>"
    )


def _make_camera_tables(figures: Mapping[str, Any]) -> list[str]:
    subsets: Mapping[str, float] = figures["subsets"]
    by_count: dict[int, list[float]] = {}
    for members, accuracy in subsets.items():
        by_count.setdefault(members.count("+") + 1, []).append(accuracy)
    alone = {members: value for members, value in subsets.items() if "+" not in members}
    own: Mapping[str, float] = figures["device_accuracy"]
    rows = [
        [camera, _percent(alone.get(camera)), _percent(own.get(camera))]
        for camera in (own or sorted(alone))
    ]
    heads = ["camera", "alone, all exits", "alone, its own exit"]
    parts = [_make_table(heads, rows, [alone.get(row[0], own.get(row[0])) for row in rows])]
    means = {count: sum(values) / len(values) for count, values in sorted(by_count.items())}
    counted = [
        [str(count), _percent(mean), _percent(min(by_count[count])), _percent(max(by_count[count]))]
        for count, mean in means.items()
    ]
    parts.append(_make_table(["cameras", "mean", "worst", "best"], counted, list(means.values())))
    most = max(means)
    if most - 1 in means:
        gain = 100 * (means[most] - means[most - 1])
        parts.append(
            f"<p>The {most}th camera brings {gain:+.1f} points on average; one more rarely brings "
            "more than the last one did.</p>"
            if most > 3
            else f"<p>The last camera brings {gain:+.1f} points on average.</p>"
        )
    ordered = sorted(subsets.items(), key=lambda item: (-item[0].count("+"), -item[1]))
    body = _make_table(
        ["cameras that are there", "right"],
        [[members, _percent(value)] for members, value in ordered],
        [value for _, value in ordered],
    )
    return [*parts, f"<details><summary>Every subset</summary>{body}</details>"]


def draw_confusion(classes: Sequence[str], table: Sequence[Sequence[int]]) -> str:
    """The confusion matrix as SVG."""
    side = len(classes) * CELL_PX
    shapes = []
    for i, (label, row) in enumerate(zip(classes, table, strict=True)):
        top, total = MARGIN_PX + i * CELL_PX, sum(row) or 1
        middle = top + CELL_PX / 2 + 4
        shapes.append(
            f'<text x="{MARGIN_PX - 6}" y="{middle}" text-anchor="end">{_cut(label)}</text>'
        )
        left = MARGIN_PX + i * CELL_PX + CELL_PX / 2
        turn = f'transform="rotate(-45 {left} {MARGIN_PX - 8})"'
        shapes.append(f'<text x="{left}" y="{MARGIN_PX - 8}" {turn}>{_cut(label)}</text>')
        for j, count in enumerate(row):
            x = MARGIN_PX + j * CELL_PX
            hint = f"{escape(label)} taken for {escape(classes[j])}: {count}"
            shapes.append(
                f'<rect x="{x}" y="{top}" width="{CELL_PX - 2}" height="{CELL_PX - 2}" rx="3" '
                f'style="fill: rgba(var(--mark), {0.06 + 0.8 * count / total:.2f})">'
                f"<title>{hint}</title></rect>"
            )
            if count:
                where = f'x="{x + CELL_PX / 2 - 1}" y="{middle}"'
                shapes.append(f'<text {where} text-anchor="middle">{count}</text>')
    size = side + MARGIN_PX + 60
    return (
        f'<svg role="img" aria-label="Confusion matrix" width="{size}" height="{side + MARGIN_PX}" '
        f'viewBox="0 0 {size} {side + MARGIN_PX}">{"".join(shapes)}</svg>'
    )


def _make_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], bars: Sequence[float | None] = ()
) -> str:
    """A table; bars: a share for each row, drawn at its end."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads) + ("<th></th>" if bars else "")
    lines = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{escape(text)}</td>" for text in row)
        if bars:
            share = bars[number] or 0.0
            cells += f'<td class="bar"><span style="width: {100 * share:.1f}%"></span></td>'
        lines.append(f"<tr>{cells}</tr>")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _cut(label: str) -> str:
    return escape(label if len(label) <= 16 else label[:15] + "…")
