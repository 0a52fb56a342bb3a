"""Measurement, choice of thresholds and in-process inference equal direct loops."""

from __future__ import annotations

from itertools import combinations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.core.bits import pack, unpack
from ddnn.errors import ConfigError
from ddnn.exits.cost import compute_communication_bytes
from ddnn.exits.entropy import normalized_entropy, softmax
from ddnn.exits.hierarchy import CONFIGURATIONS, make_configuration
from ddnn.exits.inference import (
    DeviceOutput,
    compute_signs,
    find_first_sure,
    infer,
    run_devices,
    run_exits,
)
from ddnn.exits.manifest import Manifest, judge
from ddnn.exits.measure import (
    Measurement,
    apply_exits,
    compute_accuracy,
    compute_missing_accuracy,
    decode_output,
    encode_with_format,
    list_member_masks,
    make_accuracy_table,
    measure_scores,
    sweep_thresholds,
)
from ddnn.exits.scores import ScoreFormat
from tests.unit.exits.exit_builders import (
    DEVICE_FEATURES,
    EDGE_FEATURES,
    IMAGE,
    make_manifest,
    make_sections,
)


def draw_exits(seed: int, letter="c", samples: int = 40):
    generator = np.random.default_rng(seed)
    hierarchy = make_configuration(letter, 3)
    exits = {
        tier: generator.normal(0, 2, (samples, 3)).astype(np.float32) for tier in hierarchy.exits
    }
    return hierarchy, exits, generator.integers(0, 3, samples).astype(np.int32)


def make_images(manifest: Manifest, samples: int, seed: int = 4) -> np.ndarray:
    shape = (samples, len(manifest.hierarchy.devices), *IMAGE)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


# ------------------------------------------------------------------- inference


def run_sections(
    manifest: Manifest, sections, images, present: list[bool]
) -> dict[str, np.ndarray]:
    """Compute every exit's scores directly, for MP at the exits and CC before the sections."""
    hierarchy = manifest.hierarchy
    outputs = {}
    for device, image in zip(hierarchy.devices, images, strict=True):
        if hierarchy.device_section:
            out = sections[device]({"image": image})
            features = unpack(pack(out["features"]), DEVICE_FEATURES)  # as they travel
            outputs[device] = (out["scores"], features)
        else:
            outputs[device] = (None, image)
    here = {d for d, there in zip(hierarchy.devices, present, strict=True) if there}
    exits = {}
    if hierarchy.local_exit:
        exits["local"] = np.max([outputs[d][0] for d in hierarchy.devices if d in here], axis=0)

    def join_parts(names, parts, shape):
        zeros = np.zeros(shape, np.float32)
        return {"features": np.concatenate([parts.get(n, zeros) for n in names], axis=-1)}

    parts = {d: outputs[d][1] for d in here}
    names: list[str] = list(hierarchy.devices)
    shape = manifest.device_features
    if hierarchy.edge_section:
        edge_parts, edge_scores = {}, []
        for group in hierarchy.edges:
            if here & set(group.devices):
                out = sections[group.id](join_parts(group.devices, parts, shape))
                edge_scores.append(out["scores"])
                edge_parts[group.id] = np.where(out["features"] >= 0, 1, -1)
        exits["edge"] = np.max(edge_scores, axis=0)
        parts, names, shape = edge_parts, [g.id for g in hierarchy.edges], EDGE_FEATURES
    exits["cloud"] = sections["cloud"](join_parts(names, parts, shape))["scores"]
    return exits


@pytest.mark.parametrize("letter", CONFIGURATIONS)
def test_the_hierarchy_equals_its_sections_run_in_sequence(letter) -> None:
    manifest = make_manifest(letter, 4)
    sections = make_sections(manifest)
    devices = len(manifest.hierarchy.devices)
    for n, images in enumerate(make_images(manifest, 3)):
        for mask in range(1, 1 << devices):
            outputs = run_devices(manifest, sections, images)
            got = run_exits(manifest, sections, outputs, mask)
            expected = run_sections(
                manifest, sections, images, [bool(mask >> i & 1) for i in range(devices)]
            )
            assert list(got) == list(manifest.hierarchy.exits), n
            for tier, scores in got.items():
                np.testing.assert_array_equal(scores, expected[tier])


@pytest.mark.parametrize("letter", CONFIGURATIONS)
@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.0])
def test_the_first_sure_exit_answers(letter, threshold: float) -> None:
    manifest = make_manifest(letter, 4, threshold=threshold)
    sections = make_sections(manifest)
    hierarchy = manifest.hierarchy
    for images in make_images(manifest, 10):
        judgement = infer(manifest, sections, images)
        outputs = run_devices(manifest, sections, images)
        scores = run_exits(manifest, sections, outputs, hierarchy.everyone)
        etas = {tier: float(normalized_entropy(softmax(s))) for tier, s in scores.items()}
        first = next(tier for tier in hierarchy.exits if tier == "cloud" or etas[tier] < threshold)
        assert judgement == judge(manifest, first, scores[first], hierarchy.everyone)
        assert find_first_sure(manifest, scores, hierarchy.everyone) == judgement


def test_infer_accepts_member_names() -> None:
    manifest = make_manifest("e", 3)
    sections = make_sections(manifest)
    images = make_images(manifest, 1)[0]
    judgement = infer(manifest, sections, images, ["cam3", "cam1"])
    other = images.copy()
    other[1] = 0  # the absent one's picture does not count
    assert judgement == infer(manifest, sections, other, ["cam1", "cam3"])
    assert judgement.mask == 0b101
    for strangers in (["cam9"], "cam1"):  # the latter are its letters
        with pytest.raises(ConfigError, match=r"expected some of cam1, cam2, cam3"):
            infer(manifest, sections, images, strangers)


def test_a_wrong_number_of_views_is_refused() -> None:
    manifest = make_manifest("c", 3)
    with pytest.raises(ValueError, match="zip"):
        infer(manifest, make_sections(manifest), make_images(make_manifest("c", 2), 1)[0])


def test_signs_equal_packed_and_unpacked_features() -> None:
    values = np.array([0.0, -0.0, 1e-30, -1e-30, 5, -5, np.inf, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(compute_signs(values), unpack(pack(values), values.shape))


def test_scores_are_used_as_receivers_decode_them() -> None:
    form = ScoreFormat("uint8", -3, 3)
    manifest = make_manifest("c", 2, score_format=form)
    sections = make_sections(manifest)
    images = make_images(manifest, 1)[0]
    for device, image, output in zip(
        ("cam1", "cam2"), images, run_devices(manifest, sections, images), strict=True
    ):
        exact = sections[device]({"image": image})["scores"]
        np.testing.assert_array_equal(output.scores, form.decode(form.encode(exact)))


# --------------------------------------------------------------------- measure


@pytest.mark.parametrize("devices", range(1, 9))
def test_all_subsets_but_the_empty_one_are_listed_with_the_full_one_first(devices: int) -> None:
    masks = list_member_masks(devices)
    assert sorted(masks) == list(range(1, 2**devices))
    assert masks[0] == 2**devices - 1
    sizes = [mask.bit_count() for mask in masks]
    assert sizes == sorted(sizes, reverse=True)


def test_six_devices_have_63_nonempty_subsets() -> None:
    assert len(list_member_masks(6)) == 64 - 1


def test_for_many_devices_only_the_full_set_and_single_losses_are_listed() -> None:
    masks = list_member_masks(20)
    assert masks[0] == 2**20 - 1
    assert sorted(masks[1:]) == sorted(2**20 - 1 - 2**i for i in range(20))


@pytest.mark.parametrize("letter", CONFIGURATIONS)
def test_measuring_equals_running_every_sample_with_every_mask(letter) -> None:
    manifest = make_manifest(letter, 3, score_format=ScoreFormat("uint8", -2, 2))
    sections = make_sections(manifest)
    hierarchy = manifest.hierarchy
    images = make_images(manifest, 4)
    labels = np.array([0, 1, 2, 0], np.int32)
    masks = list_member_masks(len(hierarchy.devices))
    steps = []
    measured = measure_scores(
        manifest, sections, images, labels, masks, lambda done, total: steps.append((done, total))
    )
    assert steps == [(n, 4) for n in (1, 2, 3, 4)]
    assert set(measured.exits) == set(masks)
    for n in range(4):
        outputs = run_devices(manifest, sections, images[n])
        for mask in masks:
            for tier, scores in run_exits(manifest, sections, outputs, mask).items():
                np.testing.assert_array_equal(measured.exits[mask][tier][n], scores)
        if hierarchy.device_section:
            for i, device in enumerate(hierarchy.devices):
                exact = sections[device]({"image": images[n][i]})["scores"]
                np.testing.assert_array_equal(measured.devices[n][i], exact)


@pytest.mark.parametrize("scheme", ["MP", "AP", "CC"])
def test_another_format_only_changes_the_local_exit(scheme) -> None:
    manifest = make_manifest("e", 3, schemes=(scheme, "CC"))
    sections = make_sections(manifest)
    images, labels = make_images(manifest, 5), np.zeros(5, np.int32)
    masks = list_member_masks(3)
    coarse = ScoreFormat("uint8", -2, 2)
    exact = measure_scores(manifest, sections, images, labels, masks)
    other = msgspec.structs.replace(manifest, score_format=coarse)
    expected = measure_scores(other, sections, images, labels, masks)
    got = encode_with_format(manifest, exact, coarse)
    for mask in masks:
        for tier in manifest.hierarchy.exits:
            np.testing.assert_array_equal(got.exits[mask][tier], expected.exits[mask][tier])
    assert not np.array_equal(got.exits[7]["local"], exact.exits[7]["local"])


def test_decoding_does_not_change_raw_images() -> None:
    output = DeviceOutput(None, np.zeros(3))
    assert decode_output(ScoreFormat("uint8"), output) is output


@settings(max_examples=30)
@given(
    seed=st.integers(0, 1000),
    letter=st.sampled_from(CONFIGURATIONS),
    thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_apply_exits_equals_a_loop_over_samples(
    seed: int, letter, thresholds: tuple[float, float]
) -> None:
    hierarchy, exits, _ = draw_exits(seed, letter)
    limits = dict(zip(("local", "edge"), thresholds, strict=True))
    chosen, answers = apply_exits(hierarchy, exits, limits)
    for n in range(len(chosen)):
        for index, tier in enumerate(hierarchy.exits):
            eta = normalized_entropy(softmax(exits[tier][n]))
            if tier == "cloud" or eta < limits[tier]:
                assert chosen[n] == index
                assert answers[n] == exits[tier][n].argmax()
                break


@pytest.mark.parametrize(("letter", "rows"), [("a", 1), ("c", 51), ("e", 51 * 21)])
def test_a_sweep_equals_staged_inference_at_every_threshold(letter, rows: int) -> None:
    manifest = make_manifest(letter, 3)
    hierarchy, exits, labels = draw_exits(7, letter, samples=25)
    swept = sweep_thresholds(manifest, exits, labels, ScoreFormat("float16"))
    assert len(swept) == rows
    assert len({tuple(sorted(row.thresholds.items())) for row in swept}) == rows
    for row in swept[:: max(1, rows // 20)]:
        chosen, answers = apply_exits(hierarchy, exits, row.thresholds)
        assert row.accuracy == np.mean(answers == labels)
        assert row.exit_share == {
            tier: np.mean(chosen == i) for i, tier in enumerate(hierarchy.exits)
        }
        assert sum(row.exit_share.values()) == pytest.approx(1)
        expected = (
            48.0
            if letter == "a"
            else compute_communication_bytes(3, row.exit_share["local"], 3, 4, bytes_per_score=2)
        )
        assert row.bytes_per_sample_per_device == expected


def test_accuracy_is_the_share_of_correct_labels() -> None:
    scores = np.eye(3, dtype=np.float32)
    assert compute_accuracy(scores, np.array([0, 1, 2], np.int32)) == 1
    assert compute_accuracy(scores, np.array([0, 1, 1], np.int32)) == pytest.approx(2 / 3)
    assert compute_accuracy(scores[:0], np.zeros(0, np.int32)) == 0


def test_the_table_of_accuracies_equals_a_direct_computation() -> None:
    hierarchy, _, labels = draw_exits(0, "e")
    by_mask = {mask: draw_exits(mask, "e")[1] for mask in list_member_masks(3)}
    measured = Measurement(labels, np.zeros((len(labels), 3, 3), np.float32), by_mask)
    thresholds = {"local": 0.4, "edge": 0.6}
    table = make_accuracy_table(hierarchy, measured, thresholds)
    assert set(table) == {str(mask) for mask in range(1, 8)}
    for mask, exits in by_mask.items():
        _, answers = apply_exits(hierarchy, exits, thresholds)
        assert table[str(mask)] == {
            **{tier: compute_accuracy(scores, labels) for tier, scores in exits.items()},
            "overall": np.mean(answers == labels),
        }
    for missing in (1, 2):
        kept = [sum(1 << i for i in c) for c in combinations(range(3), 3 - missing)]
        mean = np.mean([table[str(mask)]["overall"] for mask in kept])
        assert compute_missing_accuracy(hierarchy, table, missing) == pytest.approx(mean)
    assert compute_missing_accuracy(hierarchy, table, 0) == table["7"]["overall"]
    assert compute_missing_accuracy(hierarchy, table, 3) is None


@pytest.mark.parametrize("letter", ["c", "e"])
def test_fewer_samples_with_members_missing_are_every_nth(letter) -> None:
    manifest = make_manifest(letter, 3, score_format=ScoreFormat("uint8", -2, 2))
    sections, images = make_sections(manifest), make_images(manifest, 6)
    labels = np.array([0, 1, 2, 0, 1, 2], np.int32)
    masks = list_member_masks(3)
    full = measure_scores(manifest, sections, images, labels, masks)
    some = measure_scores(manifest, sections, images, labels, masks, subset_samples=3)
    assert some.subset is not None
    assert some.subset.tolist() == [0, 2, 4]
    coarse = ScoreFormat("uint8", -1, 1)
    for a, b in ((full, some), (encode_with_format(manifest, m, coarse) for m in (full, some))):
        for mask in masks:
            rows = slice(None) if mask == 7 else [0, 2, 4]
            for tier, scores in b.exits[mask].items():
                np.testing.assert_array_equal(scores, a.exits[mask][tier][rows])
    limits = dict.fromkeys(manifest.thresholds, 0.5)
    table = make_accuracy_table(manifest.hierarchy, some, limits)
    assert table["7"] == make_accuracy_table(manifest.hierarchy, full, limits)["7"]
