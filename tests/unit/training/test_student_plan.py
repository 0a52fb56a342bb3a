"""A plan of students: what its files compute, what it was measured to be worth, what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.matrices import load_section
from ddnn.core.files import BundleFile
from ddnn.core.plan import Plan, PlanRequest
from ddnn.data import Dataset, ViewPool, load
from ddnn.errors import ConfigError, InfeasiblePlanError, SectionError
from ddnn.exits import measure as m
from ddnn.exits.hierarchy import make_configuration
from ddnn.exits.manifest import Manifest
from ddnn.exits.scores import ScoreFormat
from ddnn.local_site.planning import load_training_data, parse_workers
from ddnn.runtime.bundle import load_bundle, load_sections, read_golden, read_manifest
from ddnn.runtime.plans import read_plan
from ddnn.training.student_plan import make_plan, run_golden
from ddnn.training.students.distil import Distillation
from ddnn.training.students.edge_data import (
    POOL_SAMPLES,
    compute_features,
    draw_samples,
    make_validation,
)
from ddnn.training.students.unified import UnifiedStudent

SETTINGS = Distillation(steps=8, failout_steps=2, batch=16, checkpoint_steps=1)


class KilledError(Exception):
    pass


@cache
def load_few() -> Dataset:
    return load("scenes", samples=(60, 40, 20))


def plan_students(
    bundle: Path,
    out: Path,
    workers: str = "4",
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    **request: Any,
) -> Plan:
    return make_plan(
        bundle,
        out,
        PlanRequest("students", parse_workers(workers), **request),
        load_section=load_section,
        load_data=lambda manifest, data: load_few(),
        settings=SETTINGS,
        progress=progress,
    )


@pytest.fixture(scope="module")
def planned_students(
    scenes_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plan, Path]:
    """A plan whose distillation was killed once, and went on."""
    out = tmp_path_factory.mktemp("students")
    resumed = []

    def kill(what: str, done: int, total: int) -> None:
        if what.startswith("distilling") and done == 5:
            raise KilledError

    with pytest.raises(KilledError):
        plan_students(scenes_bundle, out, progress=kill)
    made = plan_students(
        scenes_bundle, out, progress=lambda what, done, total: resumed.append((what, done))
    )
    assert [done for what, done in resumed if what.startswith("distilling")] == [6, 7, 8]
    return made, out


def test_all_members_of_a_group_hold_one_file(planned_students: tuple[Plan, Path]) -> None:
    plan, out = planned_students
    assert plan.placement == {"worker1": (0,), "worker2": (0,), "worker3": (1,), "worker4": (1,)}
    files = {piece.file.file for piece in (*plan.pieces, *plan.owned.values())}
    assert {file.name for file in out.iterdir()} == {*files, plan.golden.file, "plan.json"}
    assert len(files) == 3
    assert plan.owned.keys() == {"tail"}


def test_the_plan_reads_its_files_check_and_golden_portions_join(
    planned_students: tuple[Plan, Path], scenes_bundle: Path
) -> None:
    plan, out = planned_students
    assert read_plan(out, read_manifest(scenes_bundle)[1]).id == plan.id
    names = {str(number): piece.file for number, piece in enumerate(plan.pieces)}
    names["tail"] = plan.owned["tail"].file
    load_sections(out, names, plan.golden, load_section, names)  # raises where one differs
    golden = read_golden(out / plan.golden.file)
    z = np.zeros_like(golden["tail/in/z"])
    for number, filters in enumerate(plan.detail["filters"]):
        z[..., filters] = golden[f"{number}/out/portion"]
    np.testing.assert_array_equal(z, golden["tail/in/z"])
    filters = sorted(itertools.chain(*plan.detail["filters"]))
    assert filters == list(range(z.shape[-1]))
    assert len(plan.detail["fill_values"]) == z.shape[-1]


@pytest.mark.parametrize("missing", [0b00, 0b01, 0b10, 0b11])
def test_the_accuracy_of_each_set_is_that_of_the_whole_bundle_with_it_missing(
    planned_students: tuple[Plan, Path], scenes_bundle: Path, missing: int
) -> None:
    plan, out = planned_students
    bundle = load_bundle(scenes_bundle, LiteRtSection)
    pieces = [load_section(out / piece.file.file) for piece in plan.pieces]
    tail = load_section(out / plan.owned["tail"].file.file)

    class Edge:
        """The edge's section of students, some of which are gone."""

        def __call__(self, inputs):
            z = np.array(plan.detail["fill_values"], np.float32)
            z = np.tile(z, (*plan.owned["tail"].inputs["z"].shape[:2], 1))
            for number, filters in enumerate(plan.detail["filters"]):
                if not missing >> number & 1:
                    z[..., filters] = pieces[number](inputs)["portion"]
            return tail({"z": z})

    split, everyone = load_few().validation, bundle.manifest.hierarchy.everyone
    measured = m.measure_scores(
        bundle.manifest,
        {**bundle.sections, "edge": Edge()},
        split.images,
        split.labels,
        [everyone],
    )
    accuracy = plan.detail["accuracy"][str(missing)]
    for exit_ in ("edge", "cloud"):
        scores = measured.exits[everyone][exit_]
        assert accuracy[exit_] == pytest.approx(
            m.compute_accuracy(scores, split.labels), abs=1.5 / 40
        )


def test_the_detail_says_what_the_plan_costs(planned_students: tuple[Plan, Path]) -> None:
    detail = planned_students[0].detail
    assert detail["outage"] == pytest.approx([0.01, 0.01])
    assert detail["p_th"] == 0.02
    assert detail["fill"] in ("zero", "mean", "learned")
    assert list(detail["accuracy"]) == ["0", "1", "2", "3"]
    for student, filters in zip(detail["students"], detail["filters"], strict=True):
        kind, depth, width = student["name"].split("-")
        assert (kind, int(depth)) == ("conv", 1)
        assert int(width) >= len(filters)
        assert student["flops"] > 2 * student["parameters"]
        assert student["memory_bytes"] > 4 * student["parameters"]
    assert detail["best_latency_s"] <= detail["expected_latency_s"] * (1 + 1e-9)
    assert detail["expected_latency_s"] <= detail["guaranteed_latency_s"] * (1 + 1e-9)
    assert [len(row["groups"]) for row in detail["tradeoffs"]] == [2, 1]
    assert detail["assumed"] == [device["name"] for device in detail["devices"]]
    assert {device["outage_probability"] for device in detail["devices"]} == {0.1}
    assert detail["assumed_outage"] == 0.1


def test_files_that_are_not_the_trained_network_have_no_golden_vectors() -> None:
    import keras
    from keras import layers

    x = layers.Input((2, 2, 3))
    student = keras.Model(x, layers.Conv2D(2, 1)(x))
    z = layers.Input((2, 2, 2))
    classifier = keras.Model(
        z, [layers.Dense(3)(layers.Flatten()(z)), layers.Activation("tanh")(z)]
    )
    unified = UnifiedStudent((student,), ((1, 0),), classifier)

    def give(error: float) -> dict[str, Any]:
        def run_student(inputs):
            return {"portion": np.asarray(student(inputs["features"][None]))[0] + error}

        def run_tail(inputs):
            outputs = classifier(inputs["z"][None])
            return dict(
                zip(("scores", "features"), (np.asarray(o)[0] for o in outputs), strict=True)
            )

        return {"0": run_student, "tail": run_tail}

    inputs = np.random.default_rng(0).normal(size=(2, 2, 2, 3)).astype(np.float32)
    golden = run_golden(unified, give(0), inputs)
    np.testing.assert_array_equal(golden["0/out/portion"][..., ::-1], golden["tail/in/z"])
    with pytest.raises(SectionError, match="scores are not those of the trained network"):
        run_golden(unified, give(0.1), inputs)


def test_one_edge_of_two_is_measured_with_the_other() -> None:
    """Given the section's own outputs, the accuracies are those of the bundle."""
    rng = np.random.default_rng(2)

    def make_section(key: str, inputs: int) -> Any:
        weights = rng.normal(size=(inputs, 3)), rng.normal(size=(inputs, 12))

        def run(arrays: Any) -> dict[str, Any]:
            flat = np.asarray(arrays[key], np.float32).ravel()
            scores, features = (flat @ matrix.astype(np.float32) for matrix in weights)
            return {"scores": scores, "features": features.reshape(2, 2, 3)}

        return run

    hierarchy = make_configuration("f", 4, edges=2, exit_scheme="AP")
    sections = {device: make_section("image", 48) for device in hierarchy.devices}
    sections |= {name: make_section("features", 24) for name in ("edge", "edge2", "cloud")}
    manifest = Manifest(
        format=1,
        name="two-edges",
        data="none",
        classes=("a", "b", "c"),
        image_shape=(4, 4, 3),
        hierarchy=hierarchy,
        score_format=ScoreFormat(),
        thresholds={"local": 0.0, "edge": 0.0},
        device_features=(2, 2, 3),
        edge_features=(2, 2, 3),
        sections={},
        golden=BundleFile("", ""),
    )
    images = rng.integers(0, 256, (40, 4, 4, 4, 3)).astype(np.uint8)
    labels = rng.integers(0, 3, 40).astype(np.int32)
    everyone = hierarchy.everyone
    measured = m.measure_scores(manifest, sections, images, labels, [everyone]).exits[everyone]
    expected = {exit_: m.compute_accuracy(measured[exit_], labels) for exit_ in ("edge", "cloud")}
    features = compute_features(manifest, sections, images)
    assert features.dtype == np.int8
    for edge in ("edge", "edge2"):
        validation = make_validation(manifest, sections, edge, features, labels)
        outputs = [sections[edge]({"features": fused}) for fused in validation.fused]
        arrays = [np.stack([output[name] for output in outputs]) for name in outputs[0]]
        assert validation.measure(arrays) == expected
        assert validation.measure([-array for array in arrays]) != expected


def test_random_rigs_are_drawn_where_there_is_a_pool() -> None:
    few = load_few()
    images, labels = draw_samples(few, 6, 0)
    assert images.shape[:2] == (len(few.train), 6)
    rows = [np.flatnonzero((few.train.images == image).all((1, 2, 3, 4))) for image in images]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(few.train)))
    assert [few.train.labels[row[0]] for row in rows] == labels.tolist()
    pool = ViewPool(few.train.images, few.train.labels)
    more, their = draw_samples(replace(few, augment_pool=pool), 6, 0)
    np.testing.assert_array_equal(more[: len(images)], images)
    assert len(more) == len(their) == len(images) + POOL_SAMPLES


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"tolerate": 2}, "--tolerate 2 does not go with --redundancy students, which has --p-th"),
        ({"layer": "conv1"}, "--layer conv1 does not go with"),
        ({"steps": 0}, "--steps 0"),
        ({"outage": 1.0}, "outage is 1.0"),
        ({"p_th": 0.0}, "p_th is 0.0"),
        ({"objective": "least"}, "objective 'least'"),
        ({"network": ("vgg-1-1",)}, "student 'vgg-1-1'"),
        ({"network": ("conv-1-7",)}, "capacity"),
        ({"workers": "edge"}, "edge is not a device"),
        ({"p_th": 1e-5}, "1e-05"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refusals_come_before_training(
    scenes_bundle: Path, tmp_path: Path, request_: dict[str, Any], words: str
) -> None:
    begun = []
    with pytest.raises((ConfigError, InfeasiblePlanError)) as raised:
        plan_students(
            scenes_bundle, tmp_path / "out", progress=lambda *call: begun.append(call), **request_
        )
    assert words in str(raised.value)
    assert not [what for what, *_ in begun if what.startswith("distilling")]
    assert not (tmp_path / "out").exists()


def test_the_data_are_those_of_the_bundle_or_named(scenes_bundle: Path, monkeypatch) -> None:
    import msgspec

    import ddnn.data

    asked = []

    def load(spec, *, seed, objects_test, folders):
        asked.append((spec, seed, objects_test, folders.classes))
        return load_few()

    monkeypatch.setattr(ddnn.data, "load", load)
    manifest = read_manifest(scenes_bundle)[0]
    assert load_training_data(manifest) is load_few()
    eth80 = msgspec.structs.replace(
        manifest, data="eth80", training={"objects_test": 9, "data_seed": 4}
    )
    with pytest.raises(ConfigError, match="--data eth80:PATH"):
        load_training_data(eth80)
    load_training_data(eth80, "eth80:x.npz")
    assert asked == [
        ("scenes", 0, None, manifest.classes),
        ("eth80:x.npz", 4, 9, manifest.classes),
    ]
    smaller = msgspec.structs.replace(manifest, image_shape=(16, 16, 3))
    with pytest.raises(ConfigError, match="do not fit the bundle"):
        load_training_data(smaller)
