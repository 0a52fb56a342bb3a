"""From a request to groups of devices, their students and their parts of the teacher's filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import msgspec
import numpy as np

from ddnn.core.device import DeviceProfile
from ddnn.core.plan import PlanRequest
from ddnn.errors import ConfigError
from ddnn.students import StudentPlan, Tradeoff, build_filter_graph, list_tradeoffs, plan
from ddnn.students.types import Objective, StudentType
from ddnn.training.split import FeatureSplit
from ddnn.training.students.examples import FloatArray
from ddnn.training.students.failout import copy_model
from ddnn.training.students.family import (
    WORD_BYTES,
    Backbone,
    Shape,
    build_student,
    list_students,
)
from ddnn.training.students.unified import UnifiedStudent

OUTAGE = 0.1  # of devices that declare none
P_TH = 0.02  # above OUTAGE squared: groups of two
OBJECTIVE: Objective = "guaranteed"


@dataclass(frozen=True, slots=True)
class Grouping:
    """What groups are planned from; see ddnn.students.plan.

    input_shape: of the section; map_shape: of the teacher's feature map.
    """

    devices: tuple[DeviceProfile, ...]
    students: tuple[StudentType, ...]
    p_th: float
    objective: Objective
    input_shape: Shape
    map_shape: Shape
    seed: int

    @classmethod
    def of(cls, request: PlanRequest, teacher: FeatureSplit) -> Grouping:
        """Raises ConfigError where the request is impossible."""
        input_shape = cast(Shape, tuple(int(n) for n in teacher.features.inputs[0].shape[1:]))
        return cls(
            declare_outages(request),
            list_students(input_shape, teacher.shape, request.network),
            P_TH if request.p_th is None else request.p_th,
            cast(Objective, request.objective or OBJECTIVE),  # the planner checks it
            input_shape,
            teacher.shape,
            request.seed,
        )

    @property
    def _options(self) -> dict[str, Any]:
        height, width, _ = self.map_shape
        return {
            "bits_per_filter": 8 * WORD_BYTES * height * width,
            "input_bits": 8 * WORD_BYTES * int(np.prod(self.input_shape)),
            "seed": self.seed,
        }

    def list_tradeoffs(self) -> list[Tradeoff]:
        """The groupings that none beats. Raises ConfigError and InfeasiblePlanError as `plan`."""
        return list_tradeoffs(
            self.devices,
            self.map_shape[2],
            self.students,
            self.p_th,
            self.objective,
            **self._options,
        )

    def plan(self, z: FloatArray) -> StudentPlan:
        """The best plan for the teacher's feature maps z of validation samples [samples, ...]."""
        graph = build_filter_graph(z.mean(axis=(1, 2)))
        return plan(self.devices, graph, self.students, self.p_th, self.objective, **self._options)

    def build(self, made: StudentPlan, classifier: Any, *, positive: bool) -> UnifiedStudent:
        """Students with random weights and a copy of the teacher's classifier.

        positive: see build_student
        """
        height, width, _ = self.map_shape
        students = tuple(
            build_student(
                Backbone.parse(group.student.name),
                self.input_shape,
                (height, width, len(group.filters)),
                positive=positive,
            )
            for group in made.groups
        )
        filters = tuple(group.filters for group in made.groups)
        return UnifiedStudent(students, filters, copy_model(classifier))


def declare_outages(request: PlanRequest) -> tuple[DeviceProfile, ...]:
    """The devices, with the request's outage probability where they declare none."""
    outage = OUTAGE if request.outage is None else request.outage
    if not 0 <= outage < 1:
        raise ConfigError(f"--outage {outage}: expected a probability from 0 to below 1")
    return tuple(
        device
        if device.outage_probability
        else msgspec.structs.replace(device, outage_probability=outage)
        for device in request.devices
    )
