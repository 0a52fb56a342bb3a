"""The detail of a plan of students is checked against its pieces."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest

from ddnn import rooms
from ddnn.core.plan import Plan
from ddnn.errors import ConfigError
from ddnn.students.detail import read_detail
from ddnn.students.room import ROOM, check_golden
from ddnn.students.state import list_alternatives
from tests.plan_builders import make_piece
from tests.simulation.students import FUSED, StudentSite


@cache
def site() -> StudentSite:
    return StudentSite((3, 3, 2))


def change_detail(**fields: Any) -> Plan:
    detail = {**site().plan.detail, **fields}
    return msgspec.structs.replace(site().plan, detail=detail)


def change(**fields: Any) -> Plan:
    return msgspec.structs.replace(site().plan, **fields)


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = msgspec.json.decode(msgspec.json.encode(site().plan), type=Plan)
    assert read_detail(plan) == site().detail


BROKEN: dict[str, tuple[Callable[[], Plan], str]] = {
    "room": (lambda: change(room="coding"), "is of room 'coding'"),
    "unknown field": (lambda: change_detail(more=1), "unknown field `more`"),
    "no figure": (lambda: change_detail(outage=[2.0, 0, 0]), "outage"),
    "filter twice": (
        lambda: change_detail(filters=[[0, 1, 2, 3], [3, 4, 5], [6, 7, 8]]),
        "hold 10 filters, not each from 0 to 9 once",
    ),
    "constants": (lambda: change_detail(fill_values=[0.0] * 9), "9 constants for 10 filters"),
    "outages": (lambda: change_detail(outage=[0.1]), "outage has 1 entries for 3 groups"),
    "students": (
        lambda: change_detail(students=site().plan.detail["students"][:2]),
        "students has 2 entries for 3 groups",
    ),
    "pieces": (
        lambda: change(
            pieces=site().plan.pieces[:2],
            placement={"worker1": (0,), "worker2": (1,)},
        ),
        "2 students for 3 groups",
    ),
    "portion": (
        lambda: change(pieces=(site().plan.pieces[1], *site().plan.pieces[1:])),
        "student 0 gives",
    ),
    "head": (
        lambda: change(owned={**site().plan.owned, "head": make_piece({}, {})}),
        "must own a tail",
    ),
    "tail": (
        lambda: change(owned={"tail": make_piece({"z": (2, 2, 11)}, {"scores": (4,)})}),
        "expected float32 with 10 filters last",
    ),
    "member of two": (
        lambda: change(placement={**site().plan.placement, "worker1": (0, 1)}),
        "worker1 is in 2 groups",
    ),
    "accuracy": (lambda: change_detail(accuracy={"8": {"edge": 0.5}}), "of the lost portions 8"),
    "mask": (lambda: change_detail(accuracy={"0x1": {"edge": 0.5}}), "accuracy"),
    "exit": (lambda: change_detail(accuracy={"0": {"local": 0.5}}), "local"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_is_refused(name: str) -> None:
    make, words = BROKEN[name]
    with pytest.raises(ConfigError, match="plan ") as error:
        read_detail(make())
    assert words in str(error.value)


def make_golden() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(2)
    features = generator.choice([-1.0, 1.0], (3, *FUSED)).astype(np.float32)
    golden = {}
    for k, student in enumerate(site().students):
        golden[f"{k}/out/portion"] = np.stack(
            [student({"features": one})["portion"] for one in features]
        )
    z = np.zeros((3, 2, 2, 10), np.float32)
    for k, filters in enumerate(site().filters):
        z[..., filters] = golden[f"{k}/out/portion"]
    return {**golden, "tail/in/z": z}


def test_the_golden_portions_are_what_the_tail_takes() -> None:
    golden = make_golden()
    check_golden(site().plan, golden)
    first, second = site().filters[0][0], site().filters[1][0]
    swapped = golden["tail/in/z"].copy()
    swapped[..., [first, second]] = swapped[..., [second, first]]
    with pytest.raises(ConfigError, match="not those that its tail takes"):
        check_golden(site().plan, {**golden, "tail/in/z": swapped})
    for name in golden:
        with pytest.raises(ConfigError, match="not complete"):
            check_golden(site().plan, {k: v for k, v in golden.items() if k != name})
    narrow = {**golden, "1/out/portion": golden["1/out/portion"][..., :2]}
    with pytest.raises(ConfigError, match="not complete"):
        check_golden(site().plan, narrow)


def test_the_summary_says_what_the_plan_promises() -> None:
    tradeoff = {
        "latency_s": 0.3,
        "p_full": 0.9,
        "student_bytes": 8000,
        "groups": [["worker1"], ["worker2"]],
        "students": ["wrn-0", "wrn-1"],
        "sizes": [4, 6],
    }
    plan = change_detail(tradeoffs=[tradeoff])
    report = json.loads(json.dumps(ROOM.summarize(plan)))
    assert (report["tolerate"], report["p_full"]) == (1, pytest.approx(0.999 * 0.999 * 0.99))
    assert [group["members"] for group in report["groups"]] == site().members
    assert [row["p_full"] for row in report["after_failures"][:3]] == [
        1,
        1,
        pytest.approx(27 / 28),
    ]
    assert len(report["after_failures"]) == 9
    text = "\n".join(ROOM.format_summary(report))
    for words in (
        "8 workers of edge in 3 groups; any 1 may vanish",
        "group 2  wrn-2, 3 filters, outage 0.01, 4,000 bytes: worker7, worker8",
        "arrives with probability 0.9880",
        "edge 90.0 %, cloud 95.0 % with all portions",
        "edge 88.0 %, cloud 93.0 % without portion 1 (learned)",
        "     2   0.9643           0.0119",
        "wrn-0 x1, 4 filters | wrn-1 x1, 6 filters",
    ):
        assert words in text


def test_the_summary_says_which_outage_was_assumed() -> None:
    profiles = [
        {"name": f"worker{number}", "flops_per_s": 1e9, "outage_probability": 0.2}
        for number in range(1, 9)
    ]
    plan = change_detail(devices=profiles, assumed=["worker2", "worker3"], assumed_outage=0.2)
    report = ROOM.summarize(plan)
    assert (report["assumed"], report["assumed_outage"]) == (["worker2", "worker3"], 0.2)
    text = "\n".join(ROOM.format_summary(report))
    assert "an outage of 0.2 assumed of worker2, worker3" in text
    known = ROOM.summarize(change_detail(devices=profiles))
    assert known["assumed_outage"] is None
    assert "assumed" not in "\n".join(ROOM.format_summary(known))


def test_the_page_gets_the_plan_among_the_groupings_that_none_beats() -> None:
    assert list_alternatives(site().plan, site().detail) is None
    same = [names[::-1] for names in reversed(site().members)]
    pairs = [["worker1", "worker2"], ["worker3", "worker4"]]
    tradeoffs = [
        make_tradeoff(latency_s=0.4, groups=same, students=["a", "b", "c"], sizes=[4, 3, 3]),
        make_tradeoff(latency_s=0.9, groups=pairs, students=["a", "a"], sizes=[5, 5]),
    ]
    plan = change_detail(tradeoffs=tradeoffs)
    found = list_alternatives(plan, read_detail(plan))
    assert found is not None
    assert [axis.unit for axis in found.axes] == ["s", "share", "bytes"]
    assert [(point.current, point.label) for point in found.points] == [
        (True, "1 group of 3 (wrn-0), 1 group of 3 (wrn-1), 1 group of 2 (wrn-2)"),
        (False, "2 groups of 2 (a)"),
    ]
    assert found.points[0].values == [0.4, pytest.approx(0.999 * 0.999 * 0.99), 12_000.0]


def make_tradeoff(**fields: Any) -> dict[str, Any]:
    return {"p_full": 0.9, "student_bytes": 8000, **fields}


def test_the_room_is_in_the_table() -> None:
    assert rooms.find_room("students") is ROOM
    assert "students" in rooms.list_redundancies()
