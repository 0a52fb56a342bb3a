"""`ddnn plan` writes what computes the undivided section, without any set of workers."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.matrices import load_section
from ddnn.cli import main
from ddnn.coding.detail import read_detail
from ddnn.core.blocks import join
from ddnn.data import load
from ddnn.local_site import planning
from ddnn.protocol.topics import Kind, Topic
from ddnn.rooms import find_room
from ddnn.runtime.bundle import load_bundle, read_golden, read_manifest
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.plans import DIRECTORY, PLAN, PlanDirectory, read_plan
from tests.integration.commands import run
from tests.integration.site import Voice, start_node

TOLERANCE = 1e-4


@pytest.fixture
def plan(scenes_bundle: Path, tmp_path: Path) -> Callable[..., Result]:
    """plan(flags …) runs `ddnn plan`, in this process, into tmp_path / "plan"."""

    def call(*flags: str) -> Result:
        command = ["plan", "--bundle", str(scenes_bundle), "--out", str(tmp_path / "plan"), *flags]
        return CliRunner().invoke(main, command)

    return call


def assert_it_computes_the_section(bundle: Path, path: Path) -> None:
    """Head, whatever shards are left without any `tolerate` workers, and tail: the section."""
    loaded = load_bundle(bundle, LiteRtSection, ["edge"])
    plans = PlanDirectory(path, loaded.id, load_section, find_room)
    planned = plans.read()
    detail = read_detail(planned)
    code = detail.make_code()
    shards = [plans.load(planned.key(piece)) for piece in range(code.n)]
    head, tail = (plans.load(planned.key(name)) for name in ("head", "tail"))
    golden = read_golden(bundle / loaded.manifest.golden.file)["edge/in/features"]
    for features in golden[:2]:
        expected = loaded.sections["edge"]({"features": features})
        arrays = head({"features": features})
        z = [shard({"x": arrays["x"]})["z"] for shard in shards]
        for lost in combinations(planned.placement, detail.tolerate):
            gone = {piece for worker in lost for piece in planned.placement[worker]}
            merged = join(
                code.decode({i: result for i, result in enumerate(z) if i not in gone}),
                detail.units,
            )
            carries = {name: array for name, array in arrays.items() if name != "x"}
            outputs = tail({"z": merged.astype(np.float32), **carries})
            for name, array in expected.items():
                np.testing.assert_allclose(outputs[name], array, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--redundancy", "none", "--workers", "3"], {"shards": 3, "enough": 3, "tolerate": 0}),
        (["--workers", "5"], {"code": "parity", "enough": 4, "tolerate": 1, "hardware": 1.25}),
        (["--workers", "6", "--tolerate", "2"], {"code": "mds", "enough": 4, "hardware": 1.5}),
        (
            ["--redundancy", "replicate", "--workers", "6", "--tolerate", "2"],
            {"code": "replication", "enough": 2, "hardware": 3.0},
        ),
        (
            ["--redundancy", "coded-sparse", "--workers", "5", "--tolerate=2", "--layer", "bits"],
            {"code": "low_weight", "layer": "bits", "enough": 3},
        ),
        (
            ["--workers", "pi3a,pi3b,pi3c,pi4=2"],
            {
                "shards": 5,
                "enough": 3,
                "tolerate": 1,
                "workers": {"pi3a": [0], "pi3b": [1], "pi3c": [2], "pi4": [3, 4]},
            },
        ),
        (["--workers", "cam1,cam2,worker1"], {"shards": 3, "enough": 2}),
        (["--workers", "1", "--tolerate", "0"], {"shards": 1, "hardware": 1.0}),
        (
            ["--workers", "pi3,pi4=4,pi5=4", "--redundancy", "replicate"],
            {"shards": 3, "enough": 1, "hardware": 3.0},
        ),
    ],
    ids=lambda value: "-".join(value[1::2]) if isinstance(value, list) else "",
)
def test_every_plan_computes_the_section(
    plan: Callable[..., Result],
    scenes_bundle: Path,
    tmp_path: Path,
    flags: list[str],
    expected: dict[str, Any],
) -> None:
    done = plan(*flags, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert {key: report[key] for key in expected} == expected
    assert report["exhaustive"]
    assert report["relative_error"] < TOLERANCE
    assert report["plan"] == read_plan(tmp_path / "plan", read_manifest(scenes_bundle)[1]).id
    assert_it_computes_the_section(scenes_bundle, tmp_path / "plan")


def test_students_are_planned(
    plan: Callable[..., Result],
    scenes_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the command line to the files, with few samples and steps."""
    few = load("scenes", samples=(60, 20, 20))
    monkeypatch.setattr(planning, "load_training_data", lambda manifest, data: few)
    flags = ["--redundancy", "students", "--steps", "5", "--network", "conv-1-32", "--json"]
    done = plan(
        *flags, "--workers", "pi3,pi4=2,worker1,worker2", "--outage", "0.2", "--p-th", "0.05"
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert set(report["workers"]) == {"pi3", "pi4", "worker1", "worker2"}
    planned = read_plan(tmp_path / "plan", read_manifest(scenes_bundle)[1])
    assert planned.id == report["plan"]
    assert planned.detail["outage"] == pytest.approx([0.04, 0.04])
    assert [student["name"] for student in planned.detail["students"]] == ["conv-1-32"] * 2
    refused = plan("--redundancy", "students", "--workers", "2", "--p-th", "0.001")
    assert (refused.exit_code, "0.01" in refused.stderr) == (6, True)
    assert read_plan(tmp_path / "plan", read_manifest(scenes_bundle)[1]).id == planned.id


def test_the_same_wishes_give_the_same_plan(
    ddnn: list[str], scenes_bundle: Path, tmp_path: Path
) -> None:
    """Two nodes that plan for themselves agree; and what people read."""
    command = [*ddnn, "plan", "--bundle", str(scenes_bundle), "--workers", "4"]
    here, there = (run([*command, "--out", str(tmp_path / out)]) for out in ("here", "there"))
    assert here.returncode == 0, here.stderr
    assert here.stdout == there.stdout
    planned = read_plan(tmp_path / "here", read_manifest(scenes_bundle)[1])
    assert here.stdout.splitlines()[:3] == [
        f"plan {planned.id}: layer {read_detail(planned).layer} of edge, coded (parity)",
        "  4 shards on 4 workers; any 1 worker may vanish",
        "    worker1          0",
    ]


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--workers", "3", "--layer", "nope"], 2, ["nope", "conv1", "bits", "scores", "flops"]),
        (["--workers", "3", "--edge", "nope"], 2, ["nope", "known: edge"]),
        (["--workers", "3", "--tolerate", "3"], 6, ["more workers or a smaller --tolerate"]),
        (["--workers", "3", "--tolerate", "-1"], 2, ["expected 0 or more"]),
        (["--workers", "3", "--tolerate", "1", "--redundancy", "none"], 2, ["--tolerate 0"]),
        (["--workers", "a,pi4=4", "--tolerate", "2"], 6, ["--tolerate 2 of 2 workers"]),
        (["--workers", "0"], 2, ["--workers 6"]),
        (["--workers", "a,a"], 2, ["a is named twice"]),
        (["--workers", "pi4=two"], 2, ["pi4=2"]),
        (["--workers", "pi4=nan"], 2, ["above 0"]),
        (["--workers", "Pi_4"], 2, ["Pi_4", "a-z"]),
        (["--workers", "edge,worker1"], 2, ["edge is not a device", "worker1"]),
        (["--workers", "cloud,worker1"], 2, ["cloud is not a device"]),
        (["--workers", "2000"], 6, ["2,000 shards", "1024"]),
        (["--workers", "9", "--layer", "scores"], 6, ["scores has 3 outputs", "8 blocks"]),
        (["--workers", "announced", "--broker-port", "1"], 8, ["cannot be reached", "doctor"]),
        (["--workers", "announced", "--for-s", "0"], 2, ["--for-s"]),
        (["--workers", "3", "--p-th", "0.1"], 2, ["--p-th 0.1", "coded, which has --tolerate"]),
        (["--workers", "3", "--objective", "least"], 2, ["objective"]),
    ],
    ids=lambda value: "-".join(value[1::2]) if isinstance(value, list) else "",
)
def test_errors_say_how_to_mend_them(
    plan: Callable[..., Result], tmp_path: Path, flags: list[str], code: int, words: list[str]
) -> None:
    done = plan(*flags)
    assert done.exit_code == code, done.output
    assert "error: " in done.stderr
    assert [word for word in words if word not in done.stderr] == []
    assert not (tmp_path / "plan" / PLAN).exists()


def test_a_bundle_is_not_overwritten_and_one_without_its_source_not_cut(
    scenes_bundle: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(scenes_bundle, bundle)
    plan = ["plan", "--bundle", str(bundle), "--workers", "3"]
    before = {file.name: file.read_bytes() for file in bundle.iterdir()}
    onto = CliRunner().invoke(main, [*plan, "--out", str(bundle)])
    assert (onto.exit_code, "would overwrite" in onto.stderr) == (2, True)
    assert {file.name: file.read_bytes() for file in bundle.iterdir()} == before
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["sources"] = {}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    old = CliRunner().invoke(main, plan)
    assert (old.exit_code, "train it again" in old.stderr) == (2, True)


def test_the_apps_check_their_plan(scenes_bundle: Path, scenes_plan: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(scenes_bundle, bundle)
    shutil.copytree(scenes_plan, bundle / DIRECTORY)

    def check(app: str, node: str, *flags: str, of: Path = bundle) -> tuple[int, str]:
        done = run(
            [
                sys.executable,
                "-m",
                app,
                "--node",
                node,
                "--bundle",
                str(of),
                "--state",
                str(tmp_path),
                "--check",
                *flags,
            ]
        )
        return done.returncode, done.stdout + done.stderr

    share, lend, plan = ("--redundancy", "on"), ("--lend", "on"), ("--plan", str(scenes_plan))
    assert check("edge_app", "edge", *share)[0] == 0
    assert check("edge_app", "edge", *share, *plan, of=scenes_bundle)[0] == 0
    assert check("edge_app", "edge", *share, "--layer-here", "off")[0] == 0
    assert check("device_app", "worker1", *lend)[0] == 0
    assert check("device_app", "cam1", *lend, "--source", "dataset:scenes")[0] == 0

    def assert_refused(app: str, node: str, *flags: str, word: str, of: Path = bundle) -> None:
        code, text = check(app, node, *flags, of=of)
        assert (code, word in text) == (2, True), text

    assert_refused(
        "edge_app", "edge", *share, of=scenes_bundle, word="`ddnn plan`"
    )  # there is none
    assert_refused("edge_app", "edge", *plan, word="--redundancy on")
    assert_refused(
        "edge_app", "edge", *share, "--layer-timeout-s", "0.5", word="--layer-timeout-s 0.5"
    )
    assert_refused("device_app", "cam1", *plan, "--source", "dataset:scenes", word="--lend on")
    assert_refused("device_app", "cam1", *lend, word="give a --source")
    assert_refused("device_app", "worker1", word="--lend on")
    document = bundle / DIRECTORY / "plan.json"
    written = document.read_bytes()
    plan_of = json.loads(written)
    plan_of["detail"]["generator"][-1][0] += 0.5
    document.write_text(json.dumps(plan_of))
    assert_refused("edge_app", "edge", *share, word="its code does not fit its shards")
    document.write_bytes(written)
    held = bundle / DIRECTORY / plan_of["pieces"][0]["file"]["file"]
    content = held.read_bytes()
    held.write_bytes(content[:-8] + bytes(8))
    assert_refused("device_app", "worker1", *lend, word=f"{held.name} has sha256")
    held.write_bytes(content)
    tail = bundle / DIRECTORY / plan_of["owned"]["tail"]["file"]["file"]
    tail.write_bytes(tail.read_bytes()[:-8] + bytes(8))
    assert_refused("edge_app", "edge", *share, word=f"{tail.name} has sha256")
    # The bundle was trained again: the plan is for the one before.
    (bundle / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes() + b"\n")
    assert_refused("edge_app", "edge", *share, word="plan again")
    assert_refused("device_app", "worker1", *lend, word="plan again")


def test_who_lends_is_asked_at_the_broker(
    plan: Callable[..., Result],
    voice: Voice,
    port: int,
    fleet: Fleet,
    scenes_bundle: Path,
    tmp_path: Path,
) -> None:
    """Nodes that lend without a plan announce what they can; the plan goes by that."""
    flags = ("--workers", "announced", "--broker-port", str(port), "--for-s", "2")
    nobody = plan(*flags)
    assert (nobody.exit_code, "--lend on" in nobody.stderr) == (6, True)
    other = tmp_path / "other"
    shutil.copytree(scenes_bundle, other)
    (other / "manifest.json").write_bytes((other / "manifest.json").read_bytes() + b"\n")
    state = ("--state", str(tmp_path))
    for node, bundle in (("pi-a", scenes_bundle), ("pi-b", scenes_bundle), ("pi-c", other)):
        start_node(fleet, "device", node, port, bundle, "--lend", "on", *state)
    start_node(
        fleet,
        "device",
        "cam1",
        port,
        scenes_bundle,
        "--lend",
        "on",
        *state,
        "--source",
        "dataset:scenes",
    )
    nodes = ("pi-a", "pi-b", "pi-c", "cam1")
    for node in nodes:
        voice.wait_until(
            lambda node=node: voice.list_payloads(str(Topic("home", Kind.STATUS, node)))
        )
        voice.wait_until(
            lambda node=node: voice.list_payloads(str(Topic("home", Kind.OFFER, node)))
        )
    done = plan(*flags, "--json")
    assert done.exit_code == 0, done.output
    assert "pi-c has bundle" in done.stderr
    report = json.loads(done.stdout)
    assert set(report["workers"]) == {"cam1", "pi-a", "pi-b"}
    assert all(1 <= len(held) <= 4 for held in report["workers"].values())
    assert_it_computes_the_section(scenes_bundle, tmp_path / "plan")
