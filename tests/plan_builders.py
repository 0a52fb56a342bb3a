"""Plans for tests: pieces without files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddnn.core.files import BundleFile
from ddnn.core.plan import ArraySpec, Piece, Plan

NO_FILE = BundleFile("", "")


def make_piece(
    inputs: Mapping[str, tuple[int, ...]], outputs: Mapping[str, tuple[int, ...]]
) -> Piece:
    """A piece with float32 arrays of these shapes."""
    return Piece(
        NO_FILE,
        {name: ArraySpec("float32", shape) for name, shape in inputs.items()},
        {name: ArraySpec("float32", shape) for name, shape in outputs.items()},
    )


def make_plan(
    placement: Mapping[str, tuple[int, ...]],
    piece: Piece | None = None,
    *,
    plan_id: str = "cd34ef56",
    owned: Mapping[str, Piece] | None = None,
    **fields: Any,
) -> Plan:
    """A plan of equal pieces, as many as the placement names; by default x [4] -> z [2]."""
    pieces = 1 + max(number for held in placement.values() for number in held)
    given = {"format": 1, "room": "toy", "bundle": "ab12cd34", "group": "edge", **fields}
    return Plan(
        pieces=(piece or make_piece({"x": (4,)}, {"z": (2,)}),) * pieces,
        placement=dict(placement),
        golden=NO_FILE,
        owned=dict(owned or {}),
        id=plan_id,
        **given,
    )
