"""The cut of layers into stages against all cuts, and the order of devices against all orders."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations

import numpy as np
import pytest

from ddnn.errors import ConfigError, InfeasiblePlanError
from ddnn.pipeline import Devices, Memory, bottleneck_s, choose_layout, partition
from ddnn.pipeline.order import EXACT_DEVICES, _improve_order


def list_cuts(layers: int, devices: int) -> list[list[tuple[int, int]]]:
    return [
        list(pairwise((0, *inner, layers))) for inner in combinations(range(1, layers), devices - 1)
    ]


def bottleneck_by_definition(ranges, times_s, sizes, capacities, bandwidths) -> float:
    stages = [c * sum(times_s[a:b]) for c, (a, b) in zip(capacities, ranges, strict=True)]
    links = [2 * sizes[b - 1] / w for w, (_, b) in zip(bandwidths, ranges[:-1], strict=True)]
    return max(stages + links)


def make_problem(rng: np.random.Generator, layers: int, devices: int):
    return (
        rng.uniform(0.1, 2, layers).tolist(),
        rng.uniform(1, 100, layers).tolist(),
        rng.uniform(0.5, 10, devices).tolist(),
        rng.uniform(20, 400, devices - 1).tolist(),  # every link its own (defect 3)
    )


def test_the_partition_is_the_best_of_all_cuts_of_400_networks() -> None:
    rng = np.random.default_rng(5)
    for _ in range(400):
        layers = int(rng.integers(1, 9))
        devices = int(rng.integers(1, min(layers, 5) + 1))
        problem = make_problem(rng, layers, devices)
        ranges = partition(*problem)
        best_s = min(bottleneck_by_definition(cut, *problem) for cut in list_cuts(layers, devices))
        assert ranges in list_cuts(layers, devices)
        assert bottleneck_s(ranges, *problem) == pytest.approx(best_s)
        assert bottleneck_by_definition(ranges, *problem) == pytest.approx(best_s)


@pytest.mark.parametrize("seed", range(40))
def test_memory_limits_are_obeyed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times_s, sizes, capacities, bandwidths = make_problem(rng, 7, 3)
    layer_bytes = rng.integers(1, 10, (3, 7)).tolist()
    memory = Memory([None, *rng.integers(5, 25, 2).tolist()], layer_bytes)

    def fits(cut) -> bool:
        return all(
            limit is None or sum(layer_bytes[i][a:b]) <= limit
            for i, ((a, b), limit) in enumerate(zip(cut, memory.limits_bytes, strict=True))
        )

    problem = (times_s, sizes, capacities, bandwidths)
    fitting = [cut for cut in list_cuts(7, 3) if fits(cut)]
    if not fitting:
        with pytest.raises(InfeasiblePlanError, match="memory"):
            partition(*problem, memory)
        return
    ranges = partition(*problem, memory)
    assert fits(ranges)
    best_s = min(bottleneck_by_definition(cut, *problem) for cut in fitting)
    assert bottleneck_s(ranges, *problem, memory) == pytest.approx(best_s)


def test_more_devices_than_layers_are_infeasible() -> None:
    with pytest.raises(InfeasiblePlanError, match="at most 2 devices"):
        partition([1, 1], [1, 1], [1, 1, 1], 1.0)


@pytest.mark.parametrize(
    "arguments",
    [
        ([1, 1], [1], [1, 1], [1, 1]),
        ([1, 1], [1, 1, 1], [1, 1], [1]),
        ([1, -1], [1, 1], [1, 1], [1]),
        ([1, 1], [1, 1], [1, 0], [1]),
        ([1, 1], [1, 1], [1, 1], [0]),
        ([], [], [1], []),
        ([1, float("nan")], [1, 1], [1, 1], [1]),
    ],
)
def test_impossible_arguments_are_refused(arguments) -> None:
    with pytest.raises(ConfigError, match="give"):
        partition(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ([1, 2], [1, 1], [], 1.0),
        ([1, [2, 3]], [1, 1], [1], 1.0),
        (["fast", 2], [1, 1], [1, 1], 1.0),
        ([1, 2], [1, 1], [1, 1], "thin"),
        ([1, 2], [1, 1], [1, 1], None),
    ],
)
def test_what_is_no_list_of_numbers_is_refused(arguments) -> None:
    with pytest.raises(ConfigError, match="give"):
        partition(*arguments)


@pytest.mark.parametrize("ranges", [[(0, 1.5), (1.5, 2)], [(0, 1, 2)], [0, 1], "ab", [("a", "b")]])
def test_ranges_that_are_no_pairs_of_whole_numbers_are_refused(ranges) -> None:
    with pytest.raises(ConfigError, match="give pairs of whole numbers"):
        bottleneck_s(ranges, [1, 2], [1, 1], [1, 1], 1.0)


def test_ranges_that_leave_layers_out_are_refused() -> None:
    with pytest.raises(ConfigError, match="do not cut 3 layers"):
        bottleneck_s([(0, 1), (2, 3)], [1, 1, 1], [1, 1, 1], [1, 1], [1])


def test_the_size_of_the_last_output_is_not_used() -> None:
    assert partition([1, 1], [1, 99], [1, 1], [2]) == partition([1, 1], [1], [1, 1], [2])


# ---------------------------------------------------------------------- order


def least_of_all_orders(devices: Devices) -> float:
    """The smallest bottleneck of all subsets and orders with the first device first."""
    best_s = np.inf
    others = range(1, len(devices.capacities))
    for count in range(len(others) + 1):
        for order in permutations(others, count):
            if count < len(devices.layer_times_s):
                best_s = min(best_s, devices.cut((0, *order)).bottleneck_s)
    return best_s


@pytest.mark.parametrize("seed", range(30))
def test_the_layout_is_the_best_of_all_orders_of_all_subsets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 6))
    times_s, sizes, capacities, _ = make_problem(rng, 6, count)
    devices = Devices(times_s, sizes, capacities, rng.uniform(20, 400, count).tolist())
    layout = choose_layout(devices)
    assert layout.bottleneck_s == pytest.approx(least_of_all_orders(devices))
    assert devices.measure_s(layout.devices, layout.ranges) == pytest.approx(layout.bottleneck_s)
    assert layout.devices[0] == 0


def test_the_order_changes_the_bottleneck() -> None:
    """The notes' example: a slow device in the middle of the network takes a small layer."""
    times_s, fast = [4, 1, 4], 1e9
    devices = Devices(times_s, [1, 1, 1], [1, 1, 4], [fast] * 3)
    assert devices.cut((0, 1, 2)).bottleneck_s == 16
    assert choose_layout(devices).bottleneck_s == 4
    assert choose_layout(devices).devices == (0, 2, 1)


def test_a_device_that_only_slows_the_pipeline_down_stays_spare() -> None:
    layout = choose_layout(Devices([1, 1], [1, 1], [1, 100], [1e9, 1e9]))
    assert (layout.devices, layout.ranges) == ((0,), ((0, 2),))


def test_of_equally_fast_layouts_the_one_with_fewer_devices_is_used() -> None:
    layout = choose_layout(Devices([3, 1, 1], [1] * 3, [1, 1, 1, 1], [1e9] * 4))
    assert (layout.bottleneck_s, len(layout.devices)) == (3, 2)


def test_the_search_for_many_devices_is_near_the_exact_one() -> None:
    """On problems that are small enough for both: within 10 % in nine of ten, 40 % at worst."""
    excess = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        times_s, sizes, capacities, _ = make_problem(rng, 12, 6)
        devices = Devices(times_s, sizes, capacities, rng.uniform(200, 4000, 6).tolist())
        exact_s = choose_layout(devices).bottleneck_s
        excess.append(_improve_order(devices).bottleneck_s / exact_s)
    assert min(excess) >= 1 - 1e-9
    assert np.quantile(excess, 0.9) < 1.1
    assert max(excess) < 1.4


@pytest.mark.parametrize("count", [EXACT_DEVICES + 1, 20])
def test_the_order_of_many_devices_is_better_than_the_list_order(count: int) -> None:
    rng = np.random.default_rng(count)
    times_s = rng.uniform(0.5, 2, 60).tolist()
    capacities = [1, *rng.uniform(1, 10, count - 1).tolist()]
    devices = Devices(times_s, [1] * 60, capacities, [1e9] * count)
    found_s = choose_layout(devices).bottleneck_s
    assert found_s < devices.cut(range(count)).bottleneck_s
    # Near what work that can be divided at any point would take.
    assert found_s < 1.5 * sum(times_s) / sum(1 / c for c in capacities)


def test_a_network_that_fits_nowhere_is_infeasible() -> None:
    memory = Memory([1, 1], [[2, 2], [2, 2]])
    with pytest.raises(InfeasiblePlanError, match="memory"):
        choose_layout(Devices([1, 1], [1, 1], [1, 1], [1, 1], memory))


def test_the_order_of_many_devices_keeps_their_memory() -> None:
    """The device that no layer fits into is left out."""
    for count in (7, 8, 20):
        limits = [None, 50, *[None] * (count - 2)]
        memory = Memory(limits, [[100] * 20] * count)
        layout = choose_layout(
            Devices([1.0] * 20, [1e3] * 20, [1.0] * count, [1e9] * count, memory)
        )
        assert 1 not in layout.devices
        assert layout.bottleneck_s == -(-20 // (count - 1))
