"""Nodes that lend their computing power, as processes: on a Pi, with a camera, with bad files."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.matrices import load_section, write_matrix
from ddnn.coding.coverage import Cost, Load
from ddnn.coding.detail import CertificateSummary, CodingDetail
from ddnn.core.plan import ArraySpec, Piece, Plan
from ddnn.exits.inference import run_devices
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Assignment, Result, Scores, Task, Tensor, WorkerOffer
from ddnn.protocol.topics import Kind, Topic, parse
from ddnn.rooms import find_room
from ddnn.runtime.bundle import load_bundle, make_file_entry, read_manifest, write_golden
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.plans import DIRECTORY, PlanDirectory, read_plan, write_plan
from tests.e2e.conftest import scenes_frames, scenes_split  # noqa: F401  fixtures
from tests.integration.commands import run
from tests.integration.site import Voice, start_node
from tests.integration.test_device import SITECUSTOMIZE

RATE_HZ = 50.0
BUSY_S = 3.0  # so long a camera lends without pause
BATCH = 4  # tasks that are sent together
TOLERANCE = 1e-4
RESIDENT_BYTES = 150 << 20  # of a worker: Python, LiteRT, scipy, its shards


class Edge(Voice):
    """A test that speaks as the edge: it assigns shards, asks, and takes the answers."""

    def __init__(self, port: int, plan: str, group: str = "edge") -> None:
        super().__init__(port)
        self.plan, self.group = plan, group
        self.job = int(time.time() * 1e3)

    def assign(self, **pieces: list[int]) -> None:
        self.say(Kind.ASSIGN, self.group, Assignment({self.plan: pieces}))

    def ask(self, x: np.ndarray, plan: str = "") -> int:
        self.job += 1
        self.say(Kind.TASK, self.group, Task(1, plan or self.plan, self.job, {"x": Tensor.of(x)}))
        return self.job

    def list_messages(self, kind: Kind, node: str) -> list:
        return [decode(kind, p) for p in self.list_payloads(str(Topic(self.site, kind, node)))]

    def holds(self, node: str) -> list[int] | None:
        """The pieces that a node reports to hold; None before its first report."""
        said: list[WorkerOffer] = self.list_messages(Kind.OFFER, node)
        return said[-1].holds.get(self.plan) if said else None

    def read_results(self, node: str, job: int) -> dict[int, np.ndarray]:
        said: list[Result] = self.list_messages(Kind.RESULT, node)
        return {one.piece: one.outputs["z"].array() for one in said if one.job == job}

    def answers(self, node: str, job: int, count: int = 1) -> dict[int, np.ndarray]:
        return self.wait_until(
            lambda: d if len(d := self.read_results(node, job)) == count else None
        )


@pytest.fixture
def edge(port: int, scenes_bundle: Path, scenes_plan: Path):
    edge = Edge(port, read_plan(scenes_plan, read_manifest(scenes_bundle)[1]).id)
    yield edge
    edge.close()


def block_packages(directory: Path, *, scipy: bool) -> dict[str, str]:
    """Environment of a Pi that only infers; with or without scipy."""
    directory.mkdir()
    custom = SITECUSTOMIZE.replace("'scipy', ", "") if scipy else SITECUSTOMIZE
    assert ("scipy" in custom) is not scipy
    (directory / "sitecustomize.py").write_text(custom)
    return {"PYTHONPATH": str(directory)}


def test_a_worker_on_a_pi(
    edge: Edge, port: int, fleet: Fleet, scenes_bundle: Path, scenes_plan: Path, tmp_path: Path
) -> None:
    """It needs no TensorFlow, computes what it is given, and nothing else."""
    lend = ("--lend", "on", "--plan", str(scenes_plan), "--state", str(tmp_path))
    variables = block_packages(tmp_path / "pi", scipy=True)
    start_node(fleet, "device", "worker1", port, scenes_bundle, *lend, **variables)
    edge.wait_until(lambda: edge.holds("worker1") == [])
    edge.assign(worker1=[0, 3])
    edge.wait_until(lambda: edge.holds("worker1") == [0, 3])
    plans = PlanDirectory(scenes_plan, read_manifest(scenes_bundle)[1], load_section, find_room)
    planned = plans.read()
    x = np.random.default_rng(1).standard_normal(planned.inputs["x"].shape).astype(np.float32)
    for piece, z in edge.answers("worker1", edge.ask(x), 2).items():
        expected = plans.load(planned.key(piece))({"x": x})["z"]
        np.testing.assert_allclose(z, expected, rtol=0, atol=TOLERANCE)
    refused = [edge.ask(x, plan="00000000"), edge.ask(x[1:])]  # another plan's, another shape
    edge.assign(worker1=[5])
    edge.wait_until(lambda: edge.holds("worker1") == [5])
    assert list(edge.answers("worker1", edge.ask(x))) == [5]
    assert [edge.read_results("worker1", job) for job in refused] == [{}, {}]
    assert psutil.Process(fleet.find_pid("worker1")).memory_info().rss < RESIDENT_BYTES


def test_a_worker_that_started_before_there_was_a_plan(
    edge: Edge, port: int, fleet: Fleet, scenes_bundle: Path, scenes_plan: Path, tmp_path: Path
) -> None:
    """It serves once the plan is copied into its bundle, without a restart."""
    bundle = tmp_path / "bundle"
    shutil.copytree(scenes_bundle, bundle, ignore=shutil.ignore_patterns(DIRECTORY))
    edge.assign(worker1=[2])
    start_node(
        fleet, "device", "worker1", port, bundle, "--lend", "on", "--state", str(tmp_path / "state")
    )
    edge.wait_until(lambda: edge.list_messages(Kind.OFFER, "worker1"))
    pid = fleet.find_pid("worker1")
    assert edge.holds("worker1") is None
    shutil.copytree(scenes_plan, bundle / DIRECTORY)
    edge.wait_until(lambda: edge.holds("worker1") == [2])
    plan = read_plan(scenes_plan, read_manifest(scenes_bundle)[1])
    x = np.zeros(plan.inputs["x"].shape, np.float32)
    assert list(edge.answers("worker1", edge.ask(x))) == [2]
    assert fleet.find_pid("worker1") == pid
    assert fleet.is_alive("worker1")


def test_without_scipy_a_camera_runs_and_lending_is_refused(
    edge: Edge,
    port: int,
    fleet: Fleet,
    scenes_bundle: Path,
    scenes_plan: Path,
    tmp_path: Path,
    scenes_frames: Path,  # noqa: F811
) -> None:
    variables = block_packages(tmp_path / "pi", scipy=False)
    camera = ("--source", f"frames:{scenes_frames}", "--state", str(tmp_path))
    start_node(fleet, "device", "cam1", port, scenes_bundle, *camera, **variables)
    edge.wait_until(lambda: edge.list_messages(Kind.SCORES, "cam1"))
    command = [
        sys.executable,
        "-m",
        "device_app",
        "--bundle",
        str(scenes_bundle),
        "--lend",
        "on",
        "--plan",
        str(scenes_plan),
        "--state",
        str(tmp_path),
        "--broker-port",
        str(port),
    ]
    for node in (["--node", "worker1"], ["--node", "cam1", *camera[:2]]):
        done = run([*command, *node], **variables)
        assert (done.returncode, "pip install 'ddnn[coding]'" in done.stderr) == (2, True)
    edge_app = run(
        [
            sys.executable,
            "-m",
            "edge_app",
            "--node",
            "edge",
            "--bundle",
            str(scenes_bundle),
            "--redundancy",
            "on",
            "--plan",
            str(scenes_plan),
            "--check",
        ],
        **variables,
    )
    assert (edge_app.returncode, "pip install 'ddnn[coding]'" in edge_app.stderr) == (2, True)


def test_the_doctor_examines_workers(
    ddnn: list[str], port: int, scenes_bundle: Path, scenes_plan: Path, tmp_path: Path
) -> None:
    def doctor(node: str, *flags: str, **variables: str) -> tuple[int, dict[str, dict[str, str]]]:
        done = run(
            [
                *ddnn,
                "doctor",
                "--json",
                "--bundle",
                str(scenes_bundle),
                "--state",
                str(tmp_path),
                "--broker-port",
                str(port),
                "--node",
                node,
                *flags,
            ],
            **variables,
        )
        return done.returncode, {row["check"]: row for row in json.loads(done.stdout)}

    code, rows = doctor("worker2", "--lend", "on", "--plan", str(scenes_plan))
    assert (code, rows["bundle"]["outcome"], rows["program"]["outcome"]) == (0, "ok", "ok")
    assert "to edge: piece 1" in rows["program"]["message"]
    code, rows = doctor("gate-pi", DDNN_LEND="on")  # before there is a plan
    assert (code, rows["program"]["outcome"]) == (0, "ok")
    assert "ddnn plan --workers announced" in rows["program"]["message"]
    code, rows = doctor("worker2", "--lend=on", "--plan", str(tmp_path / "nowhere"))
    assert (code, rows["program"]["outcome"]) == (2, "failed")
    assert "ddnn plan" in rows["program"]["message"] + rows["program"]["remedy"]
    code, rows = doctor("worker2", "--lend", "off")  # neither a camera nor a worker
    assert (code, rows["configuration"]["outcome"]) == (2, "failed")


# A layer whose one shard takes a worker some time.
ROWS, WIDTH = 384, 2048


def slow_plan(out: Path, bundle: str, worker: str) -> np.ndarray:
    """A plan of one dense shard over many rows; its kernel."""
    out.mkdir()
    dice = np.random.default_rng(3)
    kernel = dice.standard_normal((WIDTH, WIDTH)).astype(np.float32) / WIDTH
    write_matrix(out / "shard0.npz", kernel, None)
    x = dice.standard_normal((1, ROWS, WIDTH)).astype(np.float32)
    entry = make_file_entry(out / "shard0.npz")
    z = x @ kernel
    golden = write_golden(out, {"0/in/x": x, "0/out/z": z, "head/out/x": x, "tail/in/z": z})
    array = ArraySpec("float32", (ROWS, WIDTH))
    load = Load(kernel.nbytes, x.nbytes, x.nbytes, 2 * ROWS * WIDTH**2)
    detail = CodingDetail(
        layer="slow",
        kind="dense",
        redundancy="none",
        tolerate=0,
        code="uncoded",
        s=0,
        generator=[[1.0]],
        units=WIDTH,
        cost=Cost(1, 1, load, load, load),
        certificate=CertificateSummary(1.0, (), True, 1),
    )
    write_plan(
        out,
        Plan(
            format=1,
            room="coding",
            bundle=bundle,
            group="edge",
            pieces=(Piece(entry, {"x": array}, {"z": array}),),
            placement={worker: (0,)},
            golden=golden,
            owned={"head": Piece(entry, {}, {"x": array}), "tail": Piece(entry, {"z": array}, {})},
            detail=msgspec.to_builtins(detail),
        ),
    )
    return kernel


@pytest.mark.timed
def test_a_camera_that_lends_keeps_its_own_time(
    port: int,
    fleet: Fleet,
    scenes_bundle: Path,
    tmp_path: Path,
    scenes_frames: Path,  # noqa: F811
    scenes_split,  # noqa: F811
) -> None:
    """It answers slow tasks without pause, and its own samples as if there were none."""
    loaded = load_bundle(scenes_bundle, LiteRtSection)
    kernel = slow_plan(tmp_path / "plan", loaded.id, "cam1")
    edge = Edge(port, read_plan(tmp_path / "plan", loaded.id).id)
    start_node(
        fleet,
        "device",
        "cam1",
        port,
        scenes_bundle,
        "--source",
        f"frames:{scenes_frames}",
        "--lend",
        "on",
        "--plan",
        str(tmp_path / "plan"),
        "--state",
        str(tmp_path),
        "--rate-hz",
        str(RATE_HZ),
    )
    edge.wait_until(lambda: edge.holds("cam1") == [])
    edge.assign(cam1=[0])
    edge.wait_until(lambda: edge.holds("cam1") == [0])
    x = np.random.default_rng(4).standard_normal((ROWS, WIDTH)).astype(np.float32)
    late, took_s = Late(edge), []
    until_s = time.monotonic() + BUSY_S
    while (started_s := time.monotonic()) < until_s:  # there is always a task waiting
        jobs = {edge.ask(x) for _ in range(BATCH)}
        edge.wait_until(lambda jobs=jobs: jobs <= late.done)
        took_s.append((time.monotonic() - started_s) / BATCH)
    np.testing.assert_allclose(
        edge.read_results("cam1", edge.job)[0], x @ kernel, rtol=0, atol=TOLERANCE
    )
    delays_s = late.delays_s()
    assert len(delays_s) >= 0.75 * BUSY_S * RATE_HZ  # none was left out
    # In the tasks' queue a sample would wait for about half a batch of them.
    assert np.median(delays_s) < np.median(took_s), (np.median(delays_s), took_s)
    for scores in edge.list_messages(Kind.SCORES, "cam1")[-5:]:
        images = scenes_split.images[scores.sample % len(scenes_split.images)]
        expected = run_devices(loaded.manifest, loaded.sections, images)[0].scores
        np.testing.assert_array_equal(scores.scores.array(), expected)
    edge.close()


class Late:
    """How long after their capture cam1's scores are heard, from now on; which jobs were done."""

    def __init__(self, edge: Edge) -> None:
        self.done: set[int] = set()
        self._heard: list[tuple[float, bytes]] = []
        take = edge._client.on_message

        def note_message(client: object, user: object, message) -> None:
            if parse(message.topic).kind is Kind.SCORES:
                self._heard.append((time.time(), message.payload))
            elif parse(message.topic).kind is Kind.RESULT:
                self.done.add(decode(Kind.RESULT, message.payload).job)
            take(client, user, message)

        edge._client.on_message = note_message

    def delays_s(self) -> list[float]:
        heard = [(at_s, decode(Kind.SCORES, payload)) for at_s, payload in list(self._heard)]
        return [at_s - scores.captured_at_s for at_s, scores in heard if isinstance(scores, Scores)]
