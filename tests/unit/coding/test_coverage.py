"""Coverage as in the paper, and cost compared with copies (Hadidi et al., EDGE 2023, Fig. 14)."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import msgspec
import numpy as np
import pytest

from ddnn.coding.constructions import (
    make_dense_gaussian,
    make_low_weight,
    make_replication,
    make_uncoded,
)
from ddnn.coding.coverage import (
    PAPER_MODELS,
    Cost,
    Load,
    ModelPlan,
    compute_cost,
    compute_cost_factor,
    compute_coverage,
    compute_coverage_curve,
    count_devices,
)
from ddnn.coding.layers import Linear, split_layer
from ddnn.errors import ConfigError

PLANS = {plan.name: plan for plan in PAPER_MODELS}
FIG_14 = {
    "AlexNet": ([33, 57, 75, 89, 100], [50, 71, 88, 100]),
    "Action recognition": ([22, 40, 55, 67, 77, 86, 93, 100], [33, 60, 73, 83, 92, 100]),
    "C3D-1": ([25, 44, 60, 73, 83, 92, 100], [38, 67, 80, 91, 100]),
    "C3D-2": ([20, 36, 50, 62, 71, 80, 88, 94, 100], [40, 73, 83, 92, 100]),
    "VGG16": ([20, 36, 50, 62, 71, 80, 88, 94, 100], [40, 73, 83, 92, 100]),
}


@pytest.mark.parametrize("name", FIG_14)
def test_curves_equal_those_of_the_paper(name: str) -> None:
    doubled, hybrid = FIG_14[name]
    assert [round(value) for value in compute_coverage_curve(PLANS[name], "2MR")] == doubled
    assert [round(value) for value in compute_coverage_curve(PLANS[name], "CDC+2MR")] == hybrid


def test_all_models_of_the_figure_are_included() -> None:
    assert PLANS.keys() == FIG_14.keys()


def count_tolerated_failures(plan: ModelPlan, scheme: str, extra: int) -> Fraction:
    """Coverage by its definition: build the system device by device, and let each one fail."""
    groups = [range(size) for size in sorted(plan.coded_layers, reverse=True)]
    devices = [("layer", g) for g, members in enumerate(groups) for _ in members]
    devices += [("own", i) for i in range(plan.devices - len(devices))]
    coded: set[int] = set()
    copied: set[int] = set()
    spares: list[tuple[str, int]] = []
    for _ in range(extra):
        if "CDC" in scheme and len(coded) < len(groups):
            coded.add(len(coded))
            spares.append(("layer", len(coded) - 1))
        elif "2MR" in scheme:
            remaining = [
                i
                for i, (kind, g) in enumerate(devices)
                if i not in copied and not (kind == "layer" and g in coded)
            ]
            if remaining:
                copied.add(remaining[-1])
                spares.append(("copy", remaining[-1]))
    tolerated = sum(
        i in copied or (kind == "layer" and g in coded) for i, (kind, g) in enumerate(devices)
    )
    return Fraction(100 * (tolerated + len(spares)), len(devices) + len(spares))


@pytest.mark.parametrize("plan", PAPER_MODELS, ids=lambda plan: plan.name)
def test_a_model_is_given_by_plan_name_or_numbers(plan: ModelPlan) -> None:
    numbers = plan.devices, list(plan.coded_layers)
    for scheme in ("2MR", "cdc", "Cdc+2mr", "NONE"):
        expected = compute_coverage(
            plan, {"cdc": "CDC", "NONE": "none"}.get(scheme, scheme.upper()), 2
        )
        for given in (plan, plan.name, plan.name.upper(), numbers):
            assert compute_coverage(given, scheme, 2) == expected
    assert compute_coverage_curve(plan.name, "2mr") == compute_coverage_curve(plan, "2MR")


def test_the_example_in_the_docstring() -> None:
    assert (
        compute_coverage("AlexNet", "CDC+2MR", 1)
        == compute_coverage((5, [2]), "CDC+2MR", 1)
        == 50.0
    )


@pytest.mark.parametrize("plan", ["LeNet", (5,), 5, None, (5, 2), ("a", [1]), (2, [3]), (5, [1.5])])
def test_invalid_models_are_refused(plan: object) -> None:
    with pytest.raises(ConfigError):
        compute_coverage(plan, "2MR", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("plan", PAPER_MODELS, ids=lambda plan: plan.name)
@pytest.mark.parametrize("scheme", ["none", "2MR", "CDC", "CDC+2MR"])
def test_the_formula_equals_the_definition(plan: ModelPlan, scheme: str) -> None:
    for extra in range(plan.devices + 3):
        expected = count_tolerated_failures(plan, scheme, extra)
        assert compute_coverage(plan, scheme, extra) == pytest.approx(float(expected))


def test_curves_end_at_the_last_device_that_increases_coverage() -> None:
    for plan in PAPER_MODELS:
        assert (
            compute_coverage_curve(plan, "2MR")[-1]
            == compute_coverage_curve(plan, "CDC+2MR")[-1]
            == 100
        )
        assert len(compute_coverage_curve(plan, "2MR")) == plan.devices
        assert len(compute_coverage_curve(plan, "CDC")) == len(plan.coded_layers)
        assert compute_coverage_curve(plan, "none") == (0.0,)


def test_c3d_is_as_in_the_text_of_the_paper() -> None:
    """With two extra devices: 67 % and 73 %, where 2MR covers 44 % and 36 %."""
    for name, coded, doubled in (("C3D-1", 67, 44), ("C3D-2", 73, 36)):
        assert round(compute_coverage(PLANS[name], "CDC+2MR", 2)) == coded
        assert round(compute_coverage(PLANS[name], "2MR", 2)) == doubled


def test_the_largest_layer_is_covered_first() -> None:
    assert compute_coverage(ModelPlan("any", 9, (2, 5)), "CDC", 1) == pytest.approx(100 * 6 / 10)


@pytest.mark.parametrize(
    ("devices", "layers"), [(0, ()), (3, (2, 2)), (3, (0,)), (-1, ()), (5, (2, -1))]
)
def test_an_invalid_plan_is_refused(devices: int, layers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="at least one device"):
        ModelPlan("odd", devices, layers)


def test_unknown_schemes_and_redundancies_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"none, 2MR, CDC, CDC\+2MR"):
        compute_coverage(PAPER_MODELS[0], "3MR", 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="whole number from 0"):
        compute_coverage(PAPER_MODELS[0], "2MR", -1)
    with pytest.raises(ConfigError, match="none, replicate, coded, coded-sparse"):
        count_devices(4, 1, "raid")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one block"):
        count_devices(0, 1, "coded")


def test_hardware_cost_compared_with_copies() -> None:
    """1 + 1/N instead of 2 for one failure, constant instead of linear (EDGE 2023, section V)."""
    for k in range(1, 1000):
        assert compute_cost_factor(k, 1) == pytest.approx(1 + 1 / k)
        assert compute_cost_factor(k, 1, "replicate") == 2
        assert count_devices(k, 1, "coded") - k == 1
        assert count_devices(k, 1, "replicate") - k == k
        assert compute_cost_factor(k, 3, "none") == 1


@pytest.mark.parametrize(("n", "s"), [(5, 1), (12, 2), (12, 3), (1000, 4), (1000, 100)])
def test_the_number_of_devices_equals_that_of_the_codes(n: int, s: int) -> None:
    code = make_low_weight(n, s, trials=1) if n < 100 else make_uncoded(n - s)
    k = code.k
    assert count_devices(k, s, "coded") == count_devices(k, s, "coded-sparse") == n
    if n < 100:
        assert code.n == n
        copies = make_replication(k * (s + 1), s)
        assert copies.k == k
        assert count_devices(k, s, "replicate") == copies.n


# -- cost of a layer


def draw_kernel(inputs: int, units: int, density: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(inputs, units)) * (rng.random((inputs, units)) < density)
    return kernel.astype(np.float32)


def test_cost_of_a_dense_layer_equals_the_cost_by_hand() -> None:
    layer = Linear("dense", draw_kernel(100, 40), np.zeros(40, np.float32))
    cost = compute_cost(layer, split_layer(layer, 5, 1), (100,))
    assert cost == Cost(
        workers=5,
        blocks=4,
        worker=Load(4 * (100 * 10 + 10), 4 * 100, 4 * 10, 2 * 100 * 10),
        total=Load(5 * 4 * (100 * 10 + 10), 5 * 4 * 100, 5 * 4 * 10, 5 * 2 * 100 * 10),
        whole=Load(4 * (100 * 40 + 40), 4 * 100, 4 * 40, 2 * 100 * 40),
    )
    assert msgspec.json.decode(msgspec.json.encode(cost), type=Cost) == cost


def test_cost_of_a_convolution_equals_the_cost_by_hand() -> None:
    kernel = np.ones((3, 3, 8, 12), np.float32)
    layer = Linear("conv2d", kernel, None, strides=(2, 2), padding="same")
    cost = compute_cost(layer, split_layer(layer, 4, 1), (16, 10, 8))
    outputs = 8 * 5
    assert cost.whole == Load(4 * 864, 4 * 1280, 4 * outputs * 12, 2 * outputs * 864)
    assert cost.worker == Load(4 * 288, 4 * 1280, 4 * outputs * 4, 2 * outputs * 288)


def test_work_is_proportional_to_the_number_of_positions() -> None:
    layer = Linear("dense", draw_kernel(10, 4))
    split = split_layer(layer, 2, 0)
    one, six = compute_cost(layer, split, (10,)), compute_cost(layer, split, (6, 10))
    assert six.worker.flops == 6 * one.worker.flops
    assert six.worker.output_bytes == 6 * one.worker.output_bytes
    assert six.worker.memory_bytes == one.worker.memory_bytes


def test_sparse_shards_count_their_nonzeros() -> None:
    """Low weight keeps shards sparse; a combination of all blocks is nearly full."""
    layer = Linear("dense", draw_kernel(600, 100, 0.02))
    nonzeros = int(np.count_nonzero(layer.kernel))
    low_weight = split_layer(layer, 12, 2, code=make_low_weight(12, 2))
    full = split_layer(layer, 12, 2, code=make_dense_gaussian(12, 2))
    cost, other = compute_cost(layer, low_weight, (600,)), compute_cost(layer, full, (600,))
    sums = [2 * int(np.count_nonzero(shard.kernel.toarray())) for shard in low_weight.shards]
    assert cost.worker.flops == max(sums) < other.worker.flops / 2
    assert cost.worker.memory_bytes == max(
        shard.kernel.data.nbytes + shard.kernel.indices.nbytes + shard.kernel.indptr.nbytes
        for shard in low_weight.shards
    )
    assert cost.worker.memory_bytes < other.worker.memory_bytes < 4 * 600 * 10
    weights = sum(len(support) for support in low_weight.code.supports)
    assert sum(sums) <= 2 * nonzeros * weights / low_weight.code.k * 1.3
    assert cost.whole.flops == 2 * nonzeros


@pytest.mark.parametrize("lost", list(combinations(range(5), 2))[:3])
def test_the_cost_equals_the_bytes_of_real_answers(lost: tuple[int, ...]) -> None:
    layer = Linear("dense", draw_kernel(30, 9))
    split = split_layer(layer, 5, 2)
    x = np.ones(30, np.float32)
    answers = {i: shard(x) for i, shard in enumerate(split.shards) if i not in lost}
    cost = compute_cost(layer, split, x.shape)
    assert all(z.nbytes == cost.worker.output_bytes for z in answers.values())
    assert split.merge(answers).nbytes == cost.whole.output_bytes
