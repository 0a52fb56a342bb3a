"""Plans against the enumeration of all plans, and what holds of every plan."""

from __future__ import annotations

from itertools import combinations
from math import inf, isinf, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.core.device import DeviceProfile
from ddnn.errors import ConfigError, InfeasiblePlanError
from ddnn.students import StudentPlan, StudentType, plan
from tests.unit.students.site_made import (
    fastest_group_s,
    least_latency_s,
    make_devices,
    make_graph,
    make_students,
)

OBJECTIVES = ("guaranteed", "expected", "best")
SMALL = StudentType("small", 1e6, 100, 4)
LARGE = StudentType("large", 2e6, 300, 12)


def device(name: str, **values) -> DeviceProfile:
    return DeviceProfile(name, **{"flops_per_s": 1e6, "outage_probability": 0.1, **values})


def get_latency_s(made: StudentPlan) -> float:
    return getattr(made, f"{made.objective}_latency_s")


def compare_with_all(seed: int, objective: str, group: str, most: int) -> float:
    """The plan's latency over the optimum's, 1 where both find that there is none."""
    rng = np.random.default_rng(seed)
    filters = int(rng.integers(1, 17))
    devices = make_devices(rng, int(rng.integers(1, most + 1)))
    students = make_students(rng, filters)
    p_th, input_bits = float(rng.choice([0.01, 0.02, 0.05, 0.2])), float(rng.choice([0, 500]))
    optimum_s = least_latency_s(devices, filters, students, p_th, objective, 32, input_bits)
    try:
        made = plan(
            devices, make_graph(rng, filters), students, p_th, objective,
            input_bits=input_bits, group=group,
        )  # fmt: skip
    except InfeasiblePlanError:
        return 1 if isinf(optimum_s) else inf
    by_name = {one.name: one for one in devices}
    latency_s = max(
        fastest_group_s(
            [by_name[name] for name in group.members],
            [group.student], len(group.filters), objective, 32, input_bits,
        )
        for group in made.groups
    )  # fmt: skip
    assert get_latency_s(made) == pytest.approx(latency_s)
    return latency_s / optimum_s


@pytest.mark.parametrize("seeds", [range(start, start + 25) for start in range(0, 200, 25)])
def test_the_plan_is_the_optimum(seeds: range) -> None:
    for seed in seeds:
        objective = OBJECTIVES[seed % 3]
        most = 8 if seed % 10 == 0 else 6
        assert compare_with_all(seed, objective, "exact", most) == pytest.approx(1), seed


@pytest.mark.parametrize("seeds", [range(start, start + 25) for start in range(0, 200, 25)])
def test_the_heuristic_is_near_the_optimum(seeds: range) -> None:
    for seed in seeds:
        most = 8 if seed % 10 == 0 else 6
        assert compare_with_all(1000 + seed, "guaranteed", "follow", most) <= 1.05, seed


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_heuristic_is_near_the_exact_search_with_eight_devices(objective: str) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        students, devices, graph = make_students(rng, 32), make_devices(rng, 8), np.ones((32, 32))
        exact, follow = (
            get_latency_s(plan(devices, graph, students, 0.1, objective, group=group))
            for group in ("exact", "follow")
        )
        assert exact * (1 - 1e-12) <= follow <= 1.05 * exact


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 14),
    st.sampled_from(OBJECTIVES),
    st.sampled_from(["bottleneck", "sum"]),
    st.sampled_from(["ncut", "louvain"]),
)
def test_every_plan_keeps_its_bounds(
    seed: int, n: int, objective: str, assign: str, partition: str
) -> None:
    rng = np.random.default_rng(seed)
    filters, p_th = int(rng.integers(n, 40)), 0.1
    devices, students = make_devices(rng, n), make_students(rng, filters)
    graph = make_graph(rng, filters)
    try:
        made = plan(devices, graph, students, p_th, objective, assign=assign, partition=partition)
    except InfeasiblePlanError:
        return
    by_name = {one.name: one for one in devices}
    members = [name for group in made.groups for name in group.members]
    assert sorted([*members, *made.unused]) == sorted(by_name)
    assert all(
        by_name[name].memory_bytes < min(student.memory_bytes for student in students)
        for name in made.unused
    )
    assert sorted(i for group in made.groups for i in group.filters) == list(range(filters))
    for group in made.groups:
        assert 1 <= len(group.filters) <= group.student.capacity
        outages = [by_name[name].outage_probability for name in group.members]
        assert prod(outages) <= p_th * (1 + 1e-9)
        memories = [by_name[name].memory_bytes for name in group.members]
        assert all(memory is None or memory >= group.student.memory_bytes for memory in memories)
    assert made.latency_s() == made.best_latency_s
    assert made.best_latency_s <= made.expected_latency_s * (1 + 1e-9)
    assert made.expected_latency_s <= made.guaranteed_latency_s * (1 + 1e-9)
    for _ in range(5):
        failed = [name for name in members if rng.random() < 0.4]
        alive = all(set(group.members) - set(failed) for group in made.groups)
        assert made.latency_s(failed) >= made.latency_s()
        assert (made.latency_s(failed) <= made.guaranteed_latency_s) == alive
        assert isinf(made.latency_s(failed)) != alive


def test_a_plan_computed_by_hand() -> None:
    """The fast pair takes twice the filters of the slow one: 1 s + 4 b/r = 2 s + 2 b/r."""
    devices = [
        device("a", flops_per_s=1e6, uplink_bits_per_s=64),
        device("b", flops_per_s=1e6, uplink_bits_per_s=64),
        device("c", flops_per_s=5e5, uplink_bits_per_s=64),
        device("d", flops_per_s=5e5, uplink_bits_per_s=64),
    ]
    made = plan(devices, np.ones((6, 6)), [SMALL], p_th=0.01)
    assert [group.members for group in made.groups] == [("a", "b"), ("c", "d")]
    assert [len(group.filters) for group in made.groups] == [4, 2]
    assert [group.student for group in made.groups] == [SMALL, SMALL]
    assert made.latency_s() == made.latency_s({"a", "d"}) == made.guaranteed_latency_s == 3
    assert made.latency_s(["a", "b"]) == inf
    assert made.p_full() == pytest.approx(0.99**2)
    assert made.p_full(k=2) == pytest.approx(4 / 6)


def test_unknown_links_take_no_time_and_unknown_memory_has_no_limit() -> None:
    made = plan([device("a", outage_probability=0.0)], np.ones((4, 4)), [SMALL], 1, input_bits=1e9)
    assert made.latency_s() == 1
    made = plan(
        [device("a", downlink_bits_per_s=100.0, uplink_bits_per_s=64.0)],
        np.ones((4, 4)), [SMALL], 1, input_bits=500,
    )  # fmt: skip
    assert made.latency_s() == 5 + 1 + 4 * 32 / 64


def test_a_device_without_the_memory_is_named() -> None:
    made = plan(
        [device("a"), device("b", memory_bytes=99), device("c", memory_bytes=100)],
        np.ones((4, 4)), [SMALL, LARGE], 0.1,
    )  # fmt: skip
    assert made.unused == ("b",)
    assert {name for group in made.groups for name in group.members} == {"a", "c"}


def test_equal_latencies_are_decided_by_reliability() -> None:
    """Two groups are needed and all groupings into two are as fast: two pairs are the safest."""
    made = plan([device(name) for name in "abcd"], np.ones((8, 8)), [SMALL], 0.1)
    assert sorted(len(group.members) for group in made.groups) == [2, 2]


def test_given_groups() -> None:
    devices = [device(name) for name in "abcde"]
    made = plan(devices, np.ones((8, 8)), [SMALL], 0.1, group=[["b", "a"], ["c", "d"]])
    assert [group.members for group in made.groups] == [("a", "b"), ("c", "d")]
    assert made.unused == ("e",)
    with pytest.raises(InfeasiblePlanError, match=r"the group a .* with probability 0\.1"):
        plan(devices, np.ones((8, 8)), [SMALL], 0.05, group=[["a"], ["c", "d"]])
    with pytest.raises(InfeasiblePlanError, match="hold 4 of 8 filters"):
        plan(devices, np.ones((8, 8)), [SMALL], 0.1, group=[["a", "b"]])
    for wrong in ([["a"], ["a"]], [["a"], []], [], [["x"]], [[name] for name in "abcde"]):
        with pytest.raises(ConfigError, match="group: "):
            plan(devices, np.ones((4, 4)), [SMALL], 0.1, group=wrong)


def test_the_same_input_gives_the_same_plan() -> None:
    rng = np.random.default_rng(0)
    devices, students, graph = make_devices(rng, 20), make_students(rng, 64), make_graph(rng, 64)
    assert plan(devices, graph, students, 0.1) == plan(devices, graph, students, 0.1)


def test_a_hundred_devices() -> None:
    rng = np.random.default_rng(1)
    devices, graph = make_devices(rng, 100), make_graph(rng, 256)
    students = [
        StudentType("s", 1e7, 100_000, 24),
        StudentType("m", 2e7, 400_000, 48),
        StudentType("l", 4e7, 900_000, 96),
    ]
    made = plan(devices, graph, students, 0.05)
    assert sorted(i for group in made.groups for i in group.filters) == list(range(256))
    slowest_s = max(  # no plan is faster: every device holds the least student and one filter
        min(
            s.flops / one.flops_per_s + 32 / one.uplink_bits_per_s
            for s in students
            if one.memory_bytes is None or one.memory_bytes >= s.memory_bytes
        )
        for one in devices
    )
    assert made.guaranteed_latency_s == pytest.approx(slowest_s)


def test_what_no_plan_can_meet_is_named() -> None:
    graph = np.ones((8, 8))
    with pytest.raises(InfeasiblePlanError, match=r"a, b fails .* p_th of 0\.01 or .* 0\.1 "):
        plan([device("a"), device("b")], graph, [LARGE], 0.001)
    with pytest.raises(InfeasiblePlanError, match=r"hold 4 of 8 filters; .* 4 more"):
        plan([device("a"), device("b")], graph, [SMALL], 0.01)
    with pytest.raises(InfeasiblePlanError, match=r"out b, without .* large \(300 bytes\)"):
        plan([device("a"), device("b", memory_bytes=200)], graph, [SMALL, LARGE], 0.01)
    with pytest.raises(InfeasiblePlanError, match=r"small, needs 100 bytes .* more than 99"):
        plan([device("a", memory_bytes=99)], graph, [SMALL], 1)


@pytest.mark.parametrize(("met", "p_th"), [(True, 0.01), (False, 0.0099)])
def test_rounding_does_not_break_the_bound(met: bool, p_th: float) -> None:
    """0.1 * 0.1 is a little more than 0.01 in floating point."""
    devices = [device("a"), device("b")]
    if met:
        assert plan(devices, np.ones((4, 4)), [SMALL], p_th).groups[0].members == ("a", "b")
    else:
        with pytest.raises(InfeasiblePlanError):
            plan(devices, np.ones((4, 4)), [SMALL], p_th)


NAN = float("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"devices": []}, "no devices"),
        ({"devices": [device("a"), device("a")]}, "devices: a more than once"),
        ({"students": []}, "no students"),
        ({"students": [SMALL, SMALL]}, "students: small more than once"),
        ({"filter_graph": np.ones((2, 3))}, r"shape \(2, 3\)"),
        ({"filter_graph": np.ones(4)}, r"shape \(4,\)"),
        ({"filter_graph": np.ones((0, 0))}, r"shape \(0, 0\)"),
        ({"filter_graph": [[1], [1, 2]]}, "array of numbers"),
        ({"filter_graph": [["a"]]}, "array of numbers"),
        ({"filter_graph": [[0, 1], [2, 0]]}, "not symmetric"),
        ({"filter_graph": [[0, -1], [-1, 0]]}, "negative"),
        ({"filter_graph": [[0, NAN], [NAN, 0]]}, "finite"),
        ({"filter_graph": [[0, inf], [inf, 0]]}, "finite"),
        ({"p_th": 0}, "p_th is 0"),
        ({"p_th": 1.1}, r"p_th is 1\.1"),
        ({"p_th": NAN}, "p_th is nan"),
        ({"objective": "worst"}, "objective 'worst'"),
        ({"assign": "max"}, "assign 'max'"),
        ({"partition": "random"}, "partition 'random'"),
        ({"group": "ftl"}, "group 'ftl'"),
        ({"bits_per_filter": -1}, "bits_per_filter is -1"),
        ({"input_bits": NAN}, "input_bits is nan"),
        ({"group": "exact", "devices": [device(f"d{i}") for i in range(9)]}, "up to 8"),
    ],
)
def test_impossible_input_is_one_clear_error(change: dict, message: str) -> None:
    arguments = {
        "devices": [device("a")], "filter_graph": np.ones((4, 4)), "students": [SMALL], "p_th": 0.1
    }  # fmt: skip
    plan(**arguments)
    with pytest.raises(ConfigError, match=message):
        plan(**{**arguments, **change})


@pytest.mark.parametrize(
    "values",
    [
        ("", 1, 1, 1),
        ("a", 0, 1, 1),
        ("a", NAN, 1, 1),
        ("a", 1, 0, 1),
        ("a", 1, 1, 0),
        ("a", 1, 1, 1.5),
    ],
)
def test_an_impossible_student_is_refused(values: tuple) -> None:
    with pytest.raises(ConfigError):
        StudentType(*values)


def test_failed_devices_and_k_are_checked() -> None:
    made = plan([device(name) for name in "abc"], np.ones((4, 4)), [SMALL], 0.1)
    with pytest.raises(ConfigError, match="no device x"):
        made.latency_s(["a", "x"])
    with pytest.raises(ConfigError, match="collection"):
        made.latency_s("a")
    for k in (-1, 4, 1.5):
        with pytest.raises(ConfigError, match="k is"):
            made.p_full(k=k)


@pytest.mark.parametrize("k", range(9))
def test_p_full_of_a_plan_is_what_enumeration_counts(k: int) -> None:
    rng = np.random.default_rng(3)
    made = plan(make_devices(rng, 8), make_graph(rng, 16), make_students(rng, 16), 0.1)
    sets = [made.latency_s(failed) for failed in combinations([d.name for d in made.devices], k)]
    assert not made.unused
    assert made.p_full(k=k) == pytest.approx(sum(np.isfinite(sets)) / len(sets))


def test_an_unknown_outage_is_not_none() -> None:
    """A device of which nothing is known is planned with, and reported with, what is assumed."""
    known, unknown = device("known", outage_probability=0.0), device("new", outage_probability=None)
    graph = np.ones((4, 4))
    made = plan([known, unknown], graph, [SMALL], 0.2, group=[["known"], ["new"]])
    assert made.p_full() == pytest.approx(0.9)
    assert (made.assumed, made.assumed_outage) == (("new",), 0.1)
    alone = plan([known], graph, [SMALL], 0.2)
    assert alone.assumed == ()
    with pytest.raises(InfeasiblePlanError, match=r"new fails as a whole with probability 0\.3"):
        plan([unknown], graph, [SMALL], 0.2, assumed_outage=0.3)
    with pytest.raises(ConfigError, match="outage is 1"):
        plan([unknown], graph, [SMALL], 0.2, assumed_outage=1.0)


def test_nine_devices_of_which_few_are_reliable() -> None:
    """A grouping in order of capability leaves too few groups to hold the filters."""
    outages = [0.01, 0.3, 0.2, 0.3, 0.2, 0.01, 0.2, 0.3, 0.3]
    devices = [
        DeviceProfile(f"d{i}", 1e7, uplink_bits_per_s=1000, outage_probability=outage)
        for i, outage in enumerate(outages)
    ]
    graph = np.ones((16, 16)) - np.eye(16)
    found = plan(devices, graph, [StudentType("a", 1e7, 100, 4)], p_th=0.01)
    assert len(found.groups) == 4
    assert found.latency_s() == pytest.approx(1.128)
