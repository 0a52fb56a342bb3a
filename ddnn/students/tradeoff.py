"""A trade-off that a plan file keeps, and the table of them: what is read without scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """A grouping and what it costs. student_bytes: of all groups' students, each counted once."""

    latency_s: float  # by the objective
    p_full: float
    student_bytes: int
    groups: tuple[tuple[str, ...], ...]
    students: tuple[str, ...]
    sizes: tuple[int, ...]  # filters of each group


def format_latency(seconds: float) -> str:
    """Such as "1.250 s" and "0.73 ms"."""
    return f"{seconds:.3f} s" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"


def format_tradeoffs(rows: Sequence[Tradeoff]) -> list[str]:
    """The lines of a table of trade-offs, for people."""
    lines = [f"{'latency':>10} {'P(full)':>9} {'students':>12}  groups"]
    for row in rows:
        groups = " | ".join(
            f"{student} x{len(members)}, {size} filters"
            for members, student, size in zip(row.groups, row.students, row.sizes, strict=True)
        )
        size = f"{row.student_bytes / 1000:,.0f} kB"
        latency = format_latency(row.latency_s)
        lines.append(f"{latency:>10} {row.p_full:9.4f} {size:>12}  {groups}")
    return lines
