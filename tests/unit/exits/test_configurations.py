"""Hierarchies, manifests, and the exit rule."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.errors import ConfigError
from ddnn.exits.entropy import normalized_entropy, softmax
from ddnn.exits.hierarchy import (
    CONFIGURATIONS,
    MAX_DEVICES,
    EdgeGroup,
    Hierarchy,
    make_configuration,
)
from ddnn.exits.manifest import Manifest, aggregate_scores, find_depth, judge, list_cloud_parts
from ddnn.exits.tiers import EdgeTier
from ddnn.exits.timing import Timing
from tests.unit.exits.exit_builders import make_manifest


@pytest.mark.parametrize(
    ("letter", "devices", "edges", "exits"),
    [
        ("a", 6, 1, ("cloud",)),
        ("b", 1, 1, ("local", "cloud")),
        ("c", 6, 1, ("local", "cloud")),
        ("d", 1, 1, ("local", "edge", "cloud")),
        ("e", 6, 1, ("local", "edge", "cloud")),
        ("f", 6, 2, ("local", "edge", "cloud")),
    ],
)
def test_each_configuration_has_its_sections_and_exits(
    letter, devices: int, edges: int, exits: tuple[str, ...]
) -> None:
    hierarchy = make_configuration(letter)
    assert hierarchy.devices == tuple(f"cam{i + 1}" for i in range(devices))
    assert [group.id for group in hierarchy.edges] == ["edge", "edge2"][:edges]
    assert hierarchy.exits == exits
    assert hierarchy.device_section == (letter != "a")
    assert hierarchy.lead == "edge"
    assert hierarchy.everyone == 2**devices - 1
    assert msgspec.json.decode(msgspec.json.encode(hierarchy), type=Hierarchy) == hierarchy


def test_there_are_six() -> None:
    assert CONFIGURATIONS == ("a", "b", "c", "d", "e", "f")


@pytest.mark.parametrize(("devices", "edges"), [(6, 3), (7, 3), (62, 62), (5, 1)])
def test_devices_are_divided_evenly_among_the_edges(devices: int, edges: int) -> None:
    hierarchy = make_configuration("f", devices, edges=edges)
    sizes = [len(group.devices) for group in hierarchy.edges]
    assert sum(sizes) == devices
    assert max(sizes) - min(sizes) <= 1
    assert hierarchy.devices == tuple(f"cam{i + 1}" for i in range(devices))


@pytest.mark.parametrize(
    ("letter", "devices", "edges"),
    [("g", 6, 2), ("", 6, 2), ("ab", 6, 2), ("c", 0, 2), ("c", 63, 2), ("f", 3, 4), ("f", 3, 0)],
)
def test_impossible_configurations_are_refused(letter: Any, devices: int, edges: int) -> None:
    with pytest.raises(ConfigError):
        make_configuration(letter, devices, edges=edges)


@pytest.mark.parametrize(
    "fields",
    [
        {"edges": ()},
        {"edges": (EdgeGroup("edge", ()),)},
        {"edges": (EdgeGroup("edge", ("cam1", "cam1")),)},
        {"edges": (EdgeGroup("cam1", ("cam1",)),)},
        {"edges": (EdgeGroup("cloud", ("cam1",)),)},
        {"edges": (EdgeGroup("edge", ("cloud",)),)},
        {"edges": (EdgeGroup("Edge", ("cam1",)),)},
        {"edges": (EdgeGroup("edge", ("cam/1",)),)},
        {"edges": (EdgeGroup("edge", ("cam1\n",)),)},
        {"edges": (EdgeGroup("edge", tuple(f"c{i}" for i in range(MAX_DEVICES + 1))),)},
        {"edges": (EdgeGroup("e1", ("c1",)), EdgeGroup("e2", ("c1",)))},
        {"edges": (EdgeGroup("e1", ("c1",)), EdgeGroup("e2", ("c2",))), "edge_section": False},
        {"edges": (EdgeGroup("edge", ("cam1",)),), "exit_scheme": "XX"},
        {"edges": (EdgeGroup("edge", ("cam1",)),), "fusion_scheme": "mp"},
    ],
    ids=repr,
)
def test_impossible_hierarchies_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Hierarchy(**fields)


@pytest.mark.parametrize("mask", range(64))
def test_masks_and_members_are_inverse(mask: int) -> None:
    hierarchy = make_configuration("f", 6)
    members = hierarchy.list_members(mask)
    assert hierarchy.make_mask(members) == mask
    assert hierarchy.make_mask(reversed(members)) == mask
    assert list(members) == [f"cam{i + 1}" for i in range(6) if mask & 2**i]


def test_unknown_nodes_have_no_bit_and_no_group() -> None:
    hierarchy = make_configuration("f", 6)
    assert hierarchy.make_mask(["cam9", "cam2", "cam2"]) == 0b10
    assert hierarchy.find_group("edge2").devices == ("cam4", "cam5", "cam6")
    with pytest.raises(ConfigError, match="edge9"):
        hierarchy.find_group("edge9")


def test_the_cloud_fuses_edges_with_a_section_else_devices() -> None:
    assert list_cloud_parts(make_manifest("c", 3)) == (("cam1", "cam2", "cam3"), (2, 2, 3))
    assert list_cloud_parts(make_manifest("f", 4)) == (("edge", "edge2"), (2, 2, 2))
    assert list_cloud_parts(make_manifest("a", 2)) == (("cam1", "cam2"), (4, 4, 3))


def test_exits_have_increasing_depths() -> None:
    assert [find_depth(tier) for tier in ("device", "local", "edge", "cloud")] == [0, 1, 2, 3]


# -------------------------------------------------------------------- manifest


@pytest.mark.parametrize("letter", CONFIGURATIONS)
def test_a_manifest_is_equal_after_encoding_and_decoding(letter) -> None:
    manifest = make_manifest(letter, 4, schemes=("CC", "MP"))
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest) == manifest


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ("car",)},
        {"classes": ()},
        {"thresholds": {}},
        {"thresholds": {"local": -0.1}},
        {"thresholds": {"local": 1.1}},
        {"thresholds": {"local": float("nan")}},
        {"thresholds": {"edge": 0.5}},
    ],
    ids=repr,
)
def test_impossible_manifests_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make_manifest("c", 3, **changes)


def test_expected_accuracy_is_of_exactly_these_members() -> None:
    manifest = make_manifest("c", 2, accuracy={"3": {"overall": 0.9}, "1": {"overall": 0.6}})
    assert manifest.find_expected_accuracy(3, "overall") == 0.9
    assert manifest.find_expected_accuracy(1, "overall") == 0.6
    assert manifest.find_expected_accuracy(2, "overall") is None
    assert manifest.find_expected_accuracy(1, "local") is None


def test_the_exit_rule_is_strict() -> None:
    scores = np.array([2.0, 0.5, -1.0], np.float32)
    eta = float(normalized_entropy(softmax(scores)))
    for threshold, sure in ((eta, False), (np.nextafter(eta, 1), True), (0.0, False), (1.0, True)):
        manifest = make_manifest("c", 3, threshold=float(threshold))
        judgement = judge(manifest, "local", scores, 0b11)
        assert judgement.sure == sure
        assert (judgement.eta, judgement.label, judgement.mask) == (eta, 0, 0b11)
        assert judgement.probabilities == softmax(scores).tolist()


def test_uniform_scores_do_not_exit_at_threshold_one() -> None:
    manifest = make_manifest("c", 3, threshold=1.0)
    eta = judge(manifest, "local", np.zeros(3, np.float32), 1).eta
    assert judge(manifest, "local", np.zeros(3, np.float32), 1).sure == (eta < 1)


def test_the_deepest_exit_is_always_sure_and_a_single_device_never() -> None:
    manifest = make_manifest("c", 3, threshold=1.0)
    assert judge(manifest, "cloud", np.zeros(3, np.float32), 1).sure
    assert not judge(manifest, "device", np.array([99, 0, 0], np.float32), 1).sure


def test_concatenated_scores_pass_the_head_of_the_exit() -> None:
    manifest = make_manifest("c", 2, schemes=("CC", "CC"))
    head = manifest.heads["local"]
    one, two = np.float32([1, 2, 3]), np.float32([-1, 0, 1])
    expected = np.concatenate([one, two]) @ np.array(head.weights) + head.bias
    np.testing.assert_allclose(aggregate_scores(manifest, "local", [one, two]), expected, rtol=1e-5)
    expected = np.concatenate([0 * one, two]) @ np.array(head.weights) + head.bias
    np.testing.assert_allclose(
        aggregate_scores(manifest, "local", [None, two]), expected, rtol=1e-5
    )


@pytest.mark.parametrize("scheme", ["MP", "AP", "CC"])
@given(
    st.lists(
        st.none() | st.lists(st.floats(-1e9, 1e9, width=32), min_size=3, max_size=3),
        min_size=3,
        max_size=3,
    )
)
def test_all_accepted_scores_give_probabilities(scheme, rows) -> None:
    manifest = make_manifest("c", 3, schemes=(scheme, "CC"))
    parts = [None if row is None else np.array(row, np.float32) for row in rows]
    judgement = judge(manifest, "local", aggregate_scores(manifest, "local", parts), 7)
    assert np.isfinite(judgement.probabilities).all()
    assert 0 <= judgement.eta <= 1


# ---------------------------------------------------------------------- timing


@pytest.mark.parametrize(
    "fields",
    [
        {"deadline_s": 0.0},
        {"window_s": 0.0},
        {"window_s": -1.0},
        {"window_s": 0.35},
        {"edge_share": 0.9},
        {"edge_share": 0.0},
        {"device_share": 1.0},
        {"deadline_s": float("nan")},
        {"deadline_s": float("inf")},
        {"window_s": float("nan")},
        {"edge_share": float("nan")},
    ],
    ids=repr,
)
def test_impossible_timings_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Timing(**fields)


def test_the_stages_fit_into_the_deadline() -> None:
    timing = Timing(deadline_s=2.0)
    assert timing.window_s < timing.edge_s == 1.4 < timing.device_s == 1.76 < timing.deadline_s


@pytest.mark.parametrize("letter", CONFIGURATIONS)
def test_features_are_awaited_from_all_where_nobody_asks_for_them(letter) -> None:
    """Without a local exit devices send them at once, so that one that sends none is missed."""
    manifest = make_manifest(letter, 4)
    tier = EdgeTier(manifest, manifest.hierarchy.lead)
    assert tier.hears_escalations == manifest.hierarchy.local_exit
