"""From a request to groups of devices, their students and their parts of the teacher's filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ddnn.core.device import ASSUMED_OUTAGE, DeviceProfile
from ddnn.core.plan import PlanRequest
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

P_TH = 0.02  # above ASSUMED_OUTAGE squared: groups of two
OBJECTIVE: Objective = "guaranteed"


@dataclass(frozen=True, slots=True)
class Grouping:
    """What groups are planned from; see ddnn.students.plan.

    input_shape: of the section; map_shape: of the teacher's feature map.
    """

    devices: tuple[DeviceProfile, ...]
    assumed_outage: float  # of devices that declare none
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
            request.devices,
            ASSUMED_OUTAGE if request.outage is None else request.outage,
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
            "assumed_outage": self.assumed_outage,
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
