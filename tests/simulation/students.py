"""A site whose edge's section runs as students: small random maps, each held by a group."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import numpy as np

from ddnn.core.plan import PieceKey
from ddnn.core.section import Arrays
from ddnn.students.combiner import StudentCombiner
from ddnn.students.detail import ROOM, StudentDetail, StudentSummary
from ddnn.students.portions import join_portions
from tests.plan_builders import make_piece, make_plan
from tests.simulation.offload_site import DEVICES, EDGE, PLAN, OffloadSite
from tests.simulation.small_hierarchy import (
    BUNDLE,
    CLASSES,
    EDGE_FEATURES,
    FEATURES,
    choose_thresholds,
    make_hierarchy,
    make_manifest,
    make_sections,
)

SIDE = 2  # of the teacher's feature map
FUSED = (*FEATURES[:-1], FEATURES[-1] * DEVICES)
OUTAGE = 0.1  # of a worker


class StudentSite(OffloadSite):
    """groups: how many workers each has. The undivided section computes the students themselves."""

    make_combiner = StudentCombiner

    def __init__(self, groups: Sequence[int] = (3, 3, 2), *, filters: int = 10, seed: int = 5):
        generator = np.random.default_rng(seed)

        def matrix(rows: int, columns: int):
            return generator.normal(0, rows**-0.5, (rows, columns)).astype(np.float32)

        parts = np.array_split(generator.permutation(filters), len(groups))
        self.filters = [part.tolist() for part in parts]
        self.fill = matrix(4, filters)[0]
        flat = int(np.prod(FUSED))
        to_scores = 6 * matrix(SIDE * SIDE * filters, len(CLASSES))
        to_features = matrix(SIDE * SIDE * filters, int(np.prod(EDGE_FEATURES)))

        def make_student(size: int):
            kernel = matrix(flat, SIDE * SIDE * size)

            def student(arrays: Arrays) -> dict[str, Any]:
                product = arrays["features"].astype(np.float32).reshape(-1) @ kernel
                return {"portion": np.tanh(product).reshape(SIDE, SIDE, size)}

            return student

        def tail(arrays: Arrays) -> dict[str, Any]:
            features = arrays["z"].reshape(-1)
            return {
                "scores": features @ to_scores,
                "features": np.tanh(features @ to_features - 0.3).reshape(EDGE_FEATURES),
            }

        self.students = [make_student(len(part)) for part in self.filters]
        self.tail = tail
        self.shards = {PieceKey(PLAN, k): student for k, student in enumerate(self.students)}
        names = iter(range(1, sum(groups) + 1))
        self.members = [[f"worker{next(names)}" for _ in range(size)] for size in groups]
        self.workers = {name: (k,) for k, names in enumerate(self.members) for name in names}
        plain = make_manifest(make_hierarchy("e", DEVICES))
        everyone = range(len(groups))
        self.sections = {
            **make_sections(plain),
            EDGE: lambda arrays: self.compute(arrays, everyone),
            PieceKey(PLAN, "tail"): tail,
        }
        middle = choose_thresholds(plain, self.sections)
        # Most samples need the section.
        thresholds = {**middle.thresholds, "local": 0.6 * middle.thresholds["local"]}
        self.manifest = msgspec.structs.replace(middle, thresholds=thresholds)
        self.detail = StudentDetail(
            filters=self.filters,
            fill="learned",
            fill_values=self.fill.tolist(),
            outage=[OUTAGE**size for size in groups],
            p_th=OUTAGE,
            students=[StudentSummary(f"wrn-{k}", 1e6, 4000, 1000) for k in everyone],
            teacher_parameters=10_000,
            guaranteed_latency_s=0.4,
            expected_latency_s=0.3,
            best_latency_s=0.2,
            accuracy={
                str(mask): {"edge": 0.9 - mask / 100, "cloud": 0.95 - mask / 100}
                for mask in range(2 ** len(groups))
            },
        )
        piece = make_piece({"features": FUSED}, {"portion": (SIDE, SIDE, 1)})
        outputs = [make_piece({}, {"portion": (SIDE, SIDE, len(p))}).outputs for p in self.filters]
        plan = make_plan(
            self.workers,
            piece,
            room=ROOM,
            bundle=BUNDLE,
            group=EDGE,
            owned={
                "tail": make_piece(
                    {"z": (SIDE, SIDE, filters)},
                    {"scores": (len(CLASSES),), "features": EDGE_FEATURES},
                )
            },
            detail=msgspec.to_builtins(self.detail),
        )
        pieces = tuple(msgspec.structs.replace(piece, outputs=given) for given in outputs)
        self.plan = msgspec.structs.replace(plan, pieces=pieces)

    def compute(self, arrays: Arrays, groups: Collection[int]) -> dict[str, Any]:
        """The section with the portions of these groups, the others filled."""
        portions = {k: self.students[k](arrays)["portion"] for k in groups}
        return self.tail({"z": join_portions(portions, self.filters, self.fill)})

    def find_live(self, workers: Collection[str]) -> list[int]:
        """The groups of which one of these workers is a member."""
        return [k for k, names in enumerate(self.members) if not set(names).isdisjoint(workers)]

    def list_members(self, groups: Collection[int]) -> list[str]:
        return sorted(name for k in groups for name in self.members[k])
