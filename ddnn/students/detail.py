"""The detail of a plan of students: portions, what replaces a lost one, and what it promises."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Annotated, Literal

import msgspec
import numpy as np

from ddnn.core.device import ASSUMED_OUTAGE, DeviceProfile
from ddnn.core.plan import MAX_ELEMENTS, MAX_PIECES, Plan
from ddnn.errors import ConfigError
from ddnn.protocol.messages import ExitName
from ddnn.students.tradeoff import Tradeoff

ROOM = "students"
PORTION, FEATURES = "portion", "z"  # of a student; of the tail
Filter = Annotated[int, msgspec.Meta(ge=0, lt=MAX_ELEMENTS)]
Filters = Annotated[list[Filter], msgspec.Meta(min_length=1, max_length=MAX_ELEMENTS)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Exit = Literal["edge", "cloud"]
Mask = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,308})\Z")]


class StudentSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The student of a group. flops: of one input; memory_bytes: what a device needs to run it."""

    name: Name
    flops: Positive
    memory_bytes: Count
    parameters: Count


class StudentDetail(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The detail of a plan whose pieces are students: piece k is the student of group k.

    Arrays: a student takes the section's own inputs and gives "portion" [..., |P_k|]; the tail
    takes "z" [..., M], all portions in the order of the filters.
    """

    # P_k of each group: the indices of its filters among the teacher's M
    filters: Annotated[list[Filters], msgspec.Meta(min_length=1, max_length=MAX_PIECES)]
    fill: Literal["zero", "mean", "learned"]  # what `fill_values` are
    fill_values: list[float]  # [M], the constants in place of lost filters
    outage: list[Probability]  # q_k of each group
    p_th: Probability
    students: list[StudentSummary]  # of each group
    teacher_parameters: Count
    guaranteed_latency_s: Seconds
    expected_latency_s: Seconds
    best_latency_s: Seconds
    # Measured on validation images: by the bit mask of lost portions ("0": none), by exit.
    accuracy: dict[Mask, dict[Exit, Probability]]
    tradeoffs: list[Tradeoff] = []  # other groupings; see ddnn.students.tradeoff
    # What the plan was made for, and of which devices no outage probability was known: these have
    # the assumed one.
    devices: Annotated[list[DeviceProfile], msgspec.Meta(max_length=MAX_PIECES)] = []
    assumed: Annotated[list[Name], msgspec.Meta(max_length=MAX_PIECES)] = []
    assumed_outage: Annotated[float, msgspec.Meta(ge=0, lt=1)] = ASSUMED_OUTAGE

    def accuracy_without(self, lost: Collection[int]) -> dict[ExitName, float]:
        """The measured accuracy by exit without these portions; empty where it was not measured."""
        measured = self.accuracy.get(str(sum(1 << portion for portion in lost)), {})
        return dict(measured.items())

    @property
    def p_full(self) -> float:
        """The probability that every portion arrives, if groups fail independently."""
        return math.prod(1 - outage for outage in self.outage)


def read_detail(plan: Plan) -> StudentDetail:
    """The detail of a plan of students, checked against its pieces.

    Raises ConfigError where the portions do not hold every filter once, or where the students, the
    tail, the placement or the figures do not fit them.
    """
    if plan.room != ROOM:
        raise ConfigError(f"plan {plan.id} is of room {plan.room!r}; expected {ROOM!r}")
    try:
        detail = msgspec.convert(plan.detail, StudentDetail)
    except msgspec.ValidationError as error:
        raise ConfigError(f"plan {plan.id}: {error}; plan again with `ddnn plan`") from None
    try:
        _check_portions(detail)
        _check_pieces(plan, detail)
        _check_accuracy(detail)
    except ConfigError as error:
        raise ConfigError(f"plan {plan.id}: {error}; plan again with `ddnn plan`") from None
    return detail


def _check_portions(detail: StudentDetail) -> None:
    groups, held = len(detail.filters), sorted(f for part in detail.filters for f in part)
    if held != list(range(len(held))):
        raise ConfigError(
            f"its portions hold {len(held)} filters, not each from 0 to {len(held) - 1} once"
        )
    if len(detail.fill_values) != len(held) or not np.isfinite(detail.fill_values).all():
        raise ConfigError(
            f"it has {len(detail.fill_values)} constants for {len(held)} filters; "
            "expected a finite number for each"
        )
    for name, values in (("outage", detail.outage), ("students", detail.students)):
        if len(values) != groups:
            raise ConfigError(f"{name} has {len(values)} entries for {groups} groups")


def _check_pieces(plan: Plan, detail: StudentDetail) -> None:
    sizes = [len(filters) for filters in detail.filters]
    if len(plan.pieces) != len(sizes):
        raise ConfigError(f"it has {len(plan.pieces)} students for {len(sizes)} groups")
    if plan.owned.keys() != {"tail"} or plan.owned["tail"].inputs.keys() != {FEATURES}:
        raise ConfigError(f"it must own a tail that takes {FEATURES!r} alone, and no head")
    features = plan.owned["tail"].inputs[FEATURES]
    for number, (piece, size) in enumerate(zip(plan.pieces, sizes, strict=True)):
        expected = (*features.shape[:-1], size)
        given = {name: (spec.type, spec.shape) for name, spec in piece.outputs.items()}
        if given != {PORTION: ("float32", expected)}:
            raise ConfigError(
                f"student {number} gives {given}; expected {PORTION!r}, float32 {expected}"
            )
    if features.type != "float32" or features.shape[-1:] != (sum(sizes),):
        raise ConfigError(
            f"the tail takes {features.type} {features.shape}; expected float32 with "
            f"{sum(sizes)} filters last"
        )
    for member, pieces in plan.placement.items():
        if len(pieces) != 1:
            raise ConfigError(f"{member} is in {len(pieces)} groups; expected one")


def _check_accuracy(detail: StudentDetail) -> None:
    groups = len(detail.filters)
    beyond = [mask for mask in detail.accuracy if int(mask) >> groups]
    if beyond:
        raise ConfigError(
            f"accuracy of the lost portions {beyond[0]}; expected bit masks of {groups} portions"
        )
