"""Accuracy of the methods on the test images, over all sets of 0 to 4 failed devices of 8.

plain: the classifier as distilled, 0 in place of a missing portion, as NoNN has it. filled: the
classifier that learned about missing portions, with the fill that is best on validation images.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from benchmarks.students.latency import FIGURES, FULL, draw_devices
from benchmarks.students.methods import METHODS, Method
from benchmarks.students.networks import (
    Bench,
    Students,
    Teacher,
    prepare_teacher,
    read_seconds,
    train_students,
)
from benchmarks.students.scales import DEVICES
from ddnn.students import StudentType, build_filter_graph
from ddnn.training.fit import Labels
from ddnn.training.students.examples import FloatArray
from ddnn.training.students.failout import FilledStudent

MOST_FAILED = 4


class Measured(NamedTuple):
    """A method, its networks, and their accuracy for each set of failed devices."""

    method: Method
    students: Students
    plain: dict[frozenset[str], float]
    filled: dict[frozenset[str], float]


def measure_accuracy(bench: Bench, types: tuple[StudentType, ...]) -> dict[str, Any]:
    """Train what is not trained yet, and the rows of all methods."""
    teacher, examples = prepare_teacher(bench)
    graph = build_filter_graph(teacher.validation[:, 0, 0])
    devices = draw_devices(FIGURES["paper"], FULL, np.random.default_rng(bench.seed))
    parameters = count_parameters(teacher)
    report: dict[str, Any] = {
        "teacher": {
            "network": bench.scale.teacher,
            "accuracy": rate(teacher.classifier, teacher.test, bench.test.labels),
            "parameters": parameters,
            "seconds": read_seconds(bench.directory / "teacher"),
            "estimated_s": bench.scale.estimate_teacher_s(),
        },
        "methods": {},
    }
    trained: dict[Method, str] = {}
    for name, make in METHODS.items():
        if name in bench.scale.untrained:
            continue
        method = make(devices, graph, types, bench.seed)
        first = trained.setdefault(method, name)
        if first != name:
            report["methods"][name] = {**report["methods"][first], "same_plan_as": first}
            continue
        students = train_students(bench, name, method, teacher, examples)
        measured = Measured(
            method,
            students,
            *(
                measure_failures(method, students.means, version, bench.test.labels)
                for version in (students.plain, students.filled)
            ),
        )
        report["methods"][name] = {
            **describe(measured, parameters),
            "seconds": read_seconds(bench.directory / name),
            "estimated_s": bench.scale.estimate_students_s(
                tuple(student for student, _ in method.students)
            ),
        }
    return report


def describe(measured: Measured, teacher_parameters: int) -> dict[str, Any]:
    """The row of a method."""
    method, students = measured.method, measured.students
    most = max(students.parameters)
    held = [
        count * len(holder)
        for count, holder in zip(students.parameters, method.holders, strict=True)
    ]
    return {
        "groups": [
            {
                "members": list(group.members),
                "student": group.student.name,
                "filters": len(group.filters),
            }
            for group in method.plan.groups
        ],
        "parameters_per_device": most,  # of the device with the most
        "mean_parameters": sum(held) / len(method.plan.devices),
        "teacher_over_device": teacher_parameters / most,
        "p_full": method.plan.p_full(),
        "fill": students.filled.fill,
        "plain": summarize(measured.plain),
        "filled": summarize(measured.filled),
        "p_full_after": {str(k): method.plan.p_full(k) for k in range(MOST_FAILED + 1)},
    }


def count_parameters(teacher: Teacher) -> int:
    """Of features and classifier."""
    parts = (teacher.split.features, teacher.split.classifier)
    return sum(int(part.count_params()) for part in parts)


def list_failed_sets(names: tuple[str, ...], most: int = MOST_FAILED) -> list[frozenset[str]]:
    """All sets of 0 to `most` of the names."""
    return [frozenset(some) for k in range(most + 1) for some in combinations(names, k)]


def measure_failures(
    method: Method, means: tuple[FloatArray, ...], version: FilledStudent, labels: Labels
) -> dict[frozenset[str], float]:
    """The accuracy for every set of failed devices. means: see Students."""
    names = tuple(device.name for device in method.plan.devices)
    known: dict[tuple[bool, ...], float] = {}  # by which networks answer
    table = {}
    for failed in list_failed_sets(names):
        live = tuple(bool(holders - failed) for holders in method.holders)
        if live not in known:
            z = join_live(method, means, version, live)
            known[live] = rate(version.unified.classifier, z, labels)
        table[failed] = known[live]
    return table


def join_live(
    method: Method,
    means: tuple[FloatArray, ...],
    version: FilledStudent,
    live: tuple[bool, ...],
) -> FloatArray:
    """The map [images, 1, 1, M] of the networks that answer; the fill where none of a part does."""
    z = np.empty((*means[0].shape[:-1], len(version.values)), np.float32)
    z[...] = version.values
    for group in method.plan.groups:
        same = [
            values
            for values, (_, filters), lives in zip(means, method.students, live, strict=True)
            if filters == group.filters and lives
        ]
        if same:
            z[..., list(group.filters)] = np.mean(same, axis=0) if len(same) > 1 else same[0]
    return z


def rate(classifier: Any, z: FloatArray, labels: Labels) -> float:
    """The share of right answers, in percent."""
    outputs = classifier(z, training=False)
    scores = np.asarray(outputs[0] if isinstance(outputs, list) else outputs)
    return float(100 * np.mean(scores.argmax(-1) == labels))


def summarize(table: dict[frozenset[str], float]) -> dict[str, dict[str, float]]:
    """By the number of failed devices: sets, mean and least accuracy in percent."""
    rows = {}
    for k in range(MOST_FAILED + 1):
        values = [accuracy for failed, accuracy in table.items() if len(failed) == k]
        rows[str(k)] = {
            "sets": len(values),
            "mean": float(np.mean(values)),
            "least": float(np.min(values)),
        }
    assert rows["1"]["sets"] == DEVICES
    return rows
