"""The state of a plan of students, as text and numbers for the page and for `ddnn plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ddnn.core.plan import Plan
from ddnn.protocol.offload_state import (
    MAX_ALTERNATIVES,
    Alternative,
    Alternatives,
    Axis,
    PieceGroup,
)
from ddnn.students.detail import StudentDetail, read_detail
from ddnn.students.outage import mean_lost_after, p_all_after
from ddnn.students.tradeoff import Tradeoff, format_latency, format_tradeoffs

MAX_NAME = 64  # characters of a PieceGroup's name
MAX_LABEL = 500  # of an Alternative's label
AXES = (Axis("latency", "s"), Axis("P(full)", "share"), Axis("memory of students", "bytes"))


def describe_plan(detail: StudentDetail, workers: int) -> str:
    """Who holds what and how likely every portion arrives, in a sentence."""
    groups = len(detail.filters)
    return (
        f"{workers} workers in {groups} {'group' if groups == 1 else 'groups'}: the first answer "
        f"of each is used. Every portion arrives with probability {detail.p_full:.4f}."
    )


def list_groups(detail: StudentDetail) -> list[PieceGroup]:
    """One for each group of workers, by its student and the size of its portion."""
    return [
        PieceGroup(f"group {k}: {len(filters)} filters, {student.name}"[:MAX_NAME], k, k + 1)
        for k, (filters, student) in enumerate(zip(detail.filters, detail.students, strict=True))
    ]


def list_alternatives(plan: Plan, detail: StudentDetail) -> Alternatives | None:
    """The plan and the groupings that none beats; None where it knows of no other."""
    members = list_members(plan)
    present = {frozenset(names) for names in members}
    # By the plan's objective, as the other points are, where it is one of those that none beats.
    latency_s = next(
        (
            row.latency_s
            for row in detail.tradeoffs
            if {frozenset(names) for names in row.groups} == present
        ),
        detail.guaranteed_latency_s,
    )
    own = Alternative(
        _describe_groups([len(names) for names in members], [one.name for one in detail.students]),
        [
            latency_s,
            detail.p_full,
            float(sum(student.memory_bytes for student in detail.students)),
        ],
        current=True,
    )
    others = [
        Alternative(
            _describe_groups([len(names) for names in row.groups], row.students),
            [row.latency_s, row.p_full, float(row.student_bytes)],
        )
        for row in detail.tradeoffs
        if {frozenset(names) for names in row.groups} != present
    ]
    if not others:
        return None
    points = sorted([own, *others[: MAX_ALTERNATIVES - 1]], key=lambda one: one.values[0])
    return Alternatives("Groupings that none beats", list(AXES), points)


def _describe_groups(sizes: Iterable[int], students: Iterable[str]) -> str:
    """Such as "2 groups of 3 (wrn-16-1), 1 group of 2 (wrn-10-1)"."""
    alike = Counter(zip(sizes, students, strict=True))
    return ", ".join(
        f"{count} {'group' if count == 1 else 'groups'} of {size} ({student})"
        for (size, student), count in alike.items()
    )[:MAX_LABEL]


def count_spare_workers(groups: int, holdings: Iterable[Collection[int]]) -> int:
    """The number of live workers that may vanish, whichever they are, so that each group keeps one.

    holdings: the groups of each live worker.
    """
    held = Counter(group for groups_held in holdings for group in groups_held)
    return max(min(held[group] for group in range(groups)) - 1, 0)


def list_members(plan: Plan) -> list[list[str]]:
    """The planned members of each group."""
    return [
        [name for name, held in plan.placement.items() if group in held]
        for group in range(len(plan.pieces))
    ]


def summarize(plan: Plan) -> dict[str, Any]:
    """The groups, what they promise and what they cost, for `ddnn plan --json`."""
    detail = read_detail(plan)
    members = list_members(plan)
    sizes = [len(names) for names in members]
    students = [
        {
            "members": names,
            "student": student.name,
            "filters": len(filters),
            "outage": outage,
            "flops": student.flops,
            "memory_bytes": student.memory_bytes,
            "parameters": student.parameters,
        }
        for names, student, filters, outage in zip(
            members, detail.students, detail.filters, detail.outage, strict=True
        )
    ]
    return {
        "section": plan.group,
        "redundancy": "students",
        "groups": students,
        "workers": {name: list(held) for name, held in plan.placement.items()},
        "tolerate": min(sizes) - 1,
        "p_th": detail.p_th,
        "outages": {device.name: device.outage_probability for device in detail.devices},
        "assumed_outage": detail.assumed_outage if detail.assumed else None,
        "assumed": list(detail.assumed),
        "p_full": detail.p_full,
        "after_failures": [
            {
                "failed": k,
                "p_full": float(p_all_after(sizes, k)),
                "mean_lost": float(mean_lost_after(sizes, k)),
            }
            for k in range(sum(sizes) + 1)
        ],
        "latency_s": {
            "guaranteed": detail.guaranteed_latency_s,
            "expected": detail.expected_latency_s,
            "best": detail.best_latency_s,
        },
        "fill": detail.fill,
        "teacher_parameters": detail.teacher_parameters,
        "student_parameters": sum(student.parameters for student in detail.students),
        "accuracy": {
            "none_lost": dict(detail.accuracy_without(())),
            "one_lost": [
                dict(detail.accuracy_without((group,))) for group in range(len(detail.filters))
            ],
        },
        "tradeoffs": msgspec.to_builtins(detail.tradeoffs),
    }


def format_summary(report: Mapping[str, Any]) -> Sequence[str]:
    """The lines of text of a summary."""
    groups, latency_s = report["groups"], report["latency_s"]
    accuracy = report["accuracy"]
    lines = [
        f"{len(report['workers'])} workers of {report['section']} in {len(groups)} groups; any "
        f"{report['tolerate']} may vanish",
        *(
            f"  group {number}  {group['student']}, {group['filters']} filters, outage "
            f"{group['outage']:.2g}, {group['memory_bytes']:,} bytes: {', '.join(group['members'])}"
            for number, group in enumerate(groups)
        ),
        f"  every portion  arrives with probability {report['p_full']:.4f} (bound of a group's "
        f"outage {report['p_th']:g})",
        *_format_assumption(report),
        f"  latency        {format_latency(latency_s['guaranteed'])} guaranteed, "
        f"{format_latency(latency_s['expected'])} expected, "
        f"{format_latency(latency_s['best'])} at best",
        f"  parameters     {report['student_parameters']:,} of all students, "
        f"{report['teacher_parameters']:,} of the teacher",
        f"  accuracy       {_format_accuracy(accuracy['none_lost'])} with all portions",
        *(
            f"                 {_format_accuracy(row)} without portion {group} ({report['fill']})"
            for group, row in enumerate(accuracy["one_lost"])
        ),
        f"  {'failed':>6} {'P(full)':>8} {'lost on average':>16}",
        *(
            f"  {row['failed']:6} {row['p_full']:8.4f} {row['mean_lost']:16.4f}"
            for row in report["after_failures"]
        ),
    ]
    if report["tradeoffs"]:
        lines += ["  groupings that none beats:"]
        rows = msgspec.convert(report["tradeoffs"], list[Tradeoff])
        lines += [f"  {line}" for line in format_tradeoffs(rows)]
    return lines


def _format_assumption(report: Mapping[str, Any]) -> Sequence[str]:
    """Which outage probability was assumed, and of whom."""
    if not report["assumed"]:
        return []
    who = report["assumed"]
    of = "every worker" if len(who) == len(report["workers"]) else ", ".join(who)
    return [
        f"                 with an outage of {report['assumed_outage']:g} assumed of {of}: "
        "none was declared or observed"
    ]


def _format_accuracy(by_exit: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {100 * value:.1f} %" for name, value in by_exit.items()) or "unknown"
