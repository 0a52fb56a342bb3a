"""A third room: every piece adds one to a number, and any two of three that agree are enough."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddnn.core.plan import ArraySpec, Piece, Plan, PlanRequest
from ddnn.core.section import Arrays
from ddnn.errors import ConfigError
from ddnn.machines.offload import Combined
from ddnn.machines.room import Golden, Room
from ddnn.protocol.offload_state import PieceGroup
from ddnn.rooms import Entry
from ddnn.runtime.bundle import make_file_entry, write_golden
from ddnn.runtime.plans import write_plan

ENTRY = Entry(room=__name__, planner=__name__, redundancies=("toy",))
NUMBER = ArraySpec("float32", (1,))


class Adder:
    counts: Mapping[str, int] = {}
    partial = False
    title, description = "adding one", "Any 2 of 3 additions suffice."
    groups: Sequence[PieceGroup] = [PieceGroup("additions", 0, 3)]
    alternatives = None

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def enough(self, pieces: Collection[int], /) -> bool:
        return len(pieces) >= 2

    def combine(
        self, parts: Mapping[int, Arrays], senders: Mapping[int, str], now_s: float, *, last: bool
    ) -> Combined:
        sums = {float(arrays["z"][0]) for arrays in parts.values()}
        agree = self.enough(parts) and len(sums) == 1
        return Combined({"z": next(iter(parts.values()))["z"]} if agree else None)

    def inspect(self, results: Any, now_s: float) -> frozenset[str]:
        return frozenset()

    def count_spare(self, holdings: Sequence[Collection[int]]) -> int:
        return max(len(holdings) - 2, 0)


def check_golden(plan: Plan, golden: Golden) -> None:
    if not all(np.array_equal(golden[f"{i}/out/z"], golden["0/in/x"] + 1) for i in range(3)):
        raise ConfigError("a piece does not add one")


def make_plan(
    bundle: Path, out: Path, request: PlanRequest, *, write_matrix: Callable[..., Any], **_: Any
) -> Plan:
    out.mkdir()
    write_matrix(out / "one.npz", np.eye(1, dtype=np.float32), np.ones(1, np.float32))
    x = np.array([[1.0], [5.0]], np.float32)
    vectors = {f"{i}/{way}": x + (way == "out/z") for i in range(3) for way in ("in/x", "out/z")}
    piece = Piece(make_file_entry(out / "one.npz"), {"x": NUMBER}, {"z": NUMBER})
    placement = {device.name: (i,) for i, device in enumerate(request.devices)}
    golden = write_golden(out, vectors)
    return write_plan(out, Plan(1, "toy", bundle.name, "edge", (piece,) * 3, placement, golden))


ROOM = Room(Adder, check_golden, lambda plan: {"pieces": 3}, lambda report: ["adding one"])
