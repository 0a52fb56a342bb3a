"""Any s of n workers vanish for real, and every answer is the undistributed model's.

One site lives through all of it: workers are killed, stopped, replaced by others and by liars,
the broker and the edge die, and only nodes that were killed are started again.
"""

from __future__ import annotations

import json
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ddnn.adapters.broker import free_port
from ddnn.local_site.watcher import SITE
from ddnn.protocol.codec import decode
from ddnn.protocol.messages import Result, Tensor, WorkerOffer
from ddnn.protocol.topics import Kind, parse
from ddnn.runtime.plans import PLAN
from tests.e2e.watched_workers import DEADLINE_S, EVERYONE, FLOW_S, LAYER_TIMEOUT_S, TIMES, Workers
from tests.integration.commands import run
from tests.integration.site import Voice

pytestmark = pytest.mark.timed

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
WORKERS = [f"worker{i}" for i in range(1, 7)]


@pytest.fixture
def workers(
    open_site, scenes_bundle, scenes_frames, scenes_split, scenes_plan, monkeypatch, request
) -> Iterator[Workers]:
    """A site with six workers whose samples all go to the edge. Parameter: --layer-here."""
    monkeypatch.setenv("DDNN_LAYER_TIMEOUT_S", str(LAYER_TIMEOUT_S))
    monkeypatch.setenv("DDNN_LAYER_HERE", getattr(request, "param", "on"))
    site = open_site(
        scenes_bundle,
        scenes_frames,
        scenes_split.labels,
        plan=scenes_plan,
        thresholds=("local=0",),
        **TIMES,
    )
    workers = Workers(site, scenes_split.images)
    time.sleep(1.5)  # the first samples: not yet by all cameras
    yield workers
    workers.close()


def test_answers_equal_the_models_whichever_node_is_lost(workers: Workers, tmp_path: Path) -> None:
    site = workers.site
    edge = site.fleet.find_pid("edge")
    lose_any_two_workers(workers)
    lose_too_many_workers(workers)
    replace_a_worker_by_a_spare(workers)
    kill_a_worker_from_the_page(workers)
    damage_a_shard(workers, tmp_path)
    replace_a_worker_by_a_liar(workers)
    kill_the_broker(workers)
    assert site.fleet.find_pid("edge") == edge
    kill_the_edge(workers)


def lose_any_two_workers(workers: Workers) -> None:
    before = workers.offload()
    assert before.enough
    first = workers.site.tick()
    for number, mended, pair in (
        (signal.SIGKILL, None, ("worker1", "worker2")),
        (signal.SIGSTOP, signal.SIGCONT, ("worker3", "worker6")),
        (signal.SIGKILL, None, ("worker4", "worker6")),
        (signal.SIGSTOP, signal.SIGCONT, ("worker1", "worker5")),
    ):
        workers.signal(number, *pair)  # while samples flow
        time.sleep(FLOW_S)
        if mended is None:
            workers.start(*pair)
        else:
            workers.signal(mended, *pair)
        workers.wait_until_whole()
    samples = range(first, workers.site.tick())
    answers = workers.assert_equal(samples)
    after = workers.offload()
    assert (after.computed_here, after.given_up) == (before.computed_here, 0)
    assert after.combined >= before.combined + answers


def lose_too_many_workers(workers: Workers) -> None:
    before = workers.offload()
    first = workers.site.tick()
    workers.kill("worker1", "worker2")
    workers.signal(signal.SIGSTOP, "worker3")
    time.sleep(2 * FLOW_S)
    lacking = workers.offload()
    assert not lacking.enough
    assert lacking.computed_here > before.computed_here
    workers.start("worker1", "worker2")
    workers.signal(signal.SIGCONT, "worker3")
    workers.wait_until_whole()
    again = workers.samples()
    workers.assert_equal(range(first, again.stop))
    assert workers.offload().computed_here - lacking.computed_here < again.start - first
    assert workers.offload().combined > lacking.combined


def replace_a_worker_by_a_spare(workers: Workers) -> None:
    site = workers.site
    first = site.tick()
    before = workers.offload()
    mine = before.workers["worker2"].pieces
    workers.kill("worker2")
    workers.lend("spare", site.config.plan)
    workers.wait_until_whole()
    standing_in = workers.offload().workers
    assert standing_in["spare"].pieces == mine
    assert (standing_in["spare"].state, standing_in["spare"].planned) == ("live", False)
    assert standing_in["worker2"].state == "lost"
    workers.start("worker2")
    workers.wait_until(
        lambda: workers.offload().workers["worker2"].state == "live", "worker2 is back"
    )
    back = workers.offload().workers
    assert (back["worker2"].pieces, back["spare"].pieces) == (mine, [])
    workers.kill("spare")
    workers.assert_equal(range(first, site.tick()))
    assert workers.offload().computed_here == before.computed_here


def kill_a_worker_from_the_page(workers: Workers) -> None:
    """The dashboard's Kill and Start buttons ask the demo's control."""

    def control(path: str, method: str) -> dict[str, bool]:
        url = f"{workers.site.control.url}/{path}"
        request = urllib.request.Request(url, method=method)  # noqa: S310  loopback
        with DIRECT.open(request, timeout=5) as response:
            return json.loads(response.read())

    first = workers.site.tick()
    assert all(control("nodes", "GET")[worker] for worker in WORKERS)
    assert not control("kill/worker5", "POST")["worker5"]
    workers.wait_until(lambda: workers.offload().workers["worker5"].state == "lost", "killed")
    assert control("start/worker5", "POST")["worker5"]
    workers.wait_until_whole()
    workers.assert_equal(range(first, workers.site.tick()))


def damage_a_shard(workers: Workers, tmp_path: Path) -> None:
    """One worker's file is damaged, another's plan is of another day: neither says anything."""
    site = workers.site
    first = site.tick()
    before = workers.offload()
    damaged, other = tmp_path / "damaged", tmp_path / "other"
    for copy in (damaged, other):
        copy.mkdir()
        for file in site.config.plan.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
    shard = damaged / workers.plan.pieces[2].file.file
    shard.write_bytes(shard.read_bytes()[:-8] + bytes(8))
    (other / PLAN).write_bytes((other / PLAN).read_bytes() + b"\n")
    commands = {node: site.fleet._commands[node][0] for node in ("worker3", "worker4")}
    workers.kill(*commands)
    workers.lend("worker3", damaged)
    workers.lend("worker4", other)
    workers.wait_until(lambda: f"{shard.name} has sha256" in workers.log("worker3"), "a word on it")
    time.sleep(FLOW_S)
    states = workers.offload().workers
    assert [states[node].state for node in commands].count("live") == 0
    for node, about in (("edge", "worker4"), ("worker4", "edge")):
        assert f"{about} has plan" in workers.log(node)
    workers.kill(*commands)
    for node, command in commands.items():
        site.fleet.start(node, command, {"OMP_NUM_THREADS": "1"})
    workers.wait_until_whole()
    workers.assert_equal(range(first, site.tick()))
    assert workers.offload().computed_here == before.computed_here


class Liar(Voice):
    """A worker in the place of another, that answers every task with numbers of its own."""

    def __init__(self, workers: Workers, node: str) -> None:
        super().__init__(workers.site.port, SITE)
        self.node, self.plan = node, workers.plan
        self.pieces = self.plan.placement[node]
        self.lied = 0
        self.announce(node, "worker", session=10**15)
        self.say(Kind.OFFER, node, WorkerOffer({self.plan.id: list(self.pieces)}))
        self._thread = threading.Thread(target=self._lie, daemon=True)
        self._ended = False
        self._thread.start()

    def _lie(self) -> None:
        heard = 0
        wrong = {
            piece: {
                name: Tensor.of(np.full(spec.shape, 3, spec.dtype))
                for name, spec in self.plan.pieces[piece].outputs.items()
            }
            for piece in self.pieces
        }
        while not self._ended:
            for topic, payload, _ in self.heard[heard:]:
                heard += 1
                if "/task/" not in topic:
                    continue
                task = decode(parse(topic).kind, payload)
                for piece in self.pieces:
                    result = Result(1, self.plan.id, task.job, piece, wrong[piece])
                    self.say(Kind.RESULT, self.node, result)
                    self.lied += 1
            time.sleep(0.001)

    def close(self) -> None:
        self._ended = True
        self._thread.join(5)
        self.announce(self.node, "worker", "lost", session=10**15)
        super().close()


def replace_a_worker_by_a_liar(workers: Workers) -> None:
    workers.kill("worker4")
    liar = Liar(workers, "worker4")
    workers.wait_until(lambda: workers.offload().workers["worker4"].state == "faulty", "found")
    found = workers.samples()
    assert workers.offload().enough
    assert {name for name, state in workers.states().items() if state == "faulty"} == {"worker4"}
    workers.assert_equal(found)
    assert liar.lied
    liar.close()
    workers.start("worker4")  # the true one, in a session of its own
    workers.wait_until_whole()
    workers.assert_equal(workers.samples())


def kill_the_broker(workers: Workers) -> None:
    workers.kill("broker")
    time.sleep(FLOW_S)
    workers.start("broker")
    workers.wait_until_whole()
    time.sleep(1.0)
    combined = workers.offload().combined
    workers.assert_equal(workers.samples())
    assert workers.offload().combined > combined


def kill_the_edge(workers: Workers) -> None:
    pids = {worker: workers.site.fleet.find_pid(worker) for worker in WORKERS}
    workers.kill("edge")
    time.sleep(FLOW_S)
    workers.start("edge")
    workers.wait_until(lambda: workers.offload().combined > 0, "combined again")
    workers.wait_until_whole()
    time.sleep(1.0)
    workers.assert_equal(workers.samples())
    assert {worker: workers.site.fleet.find_pid(worker) for worker in WORKERS} == pids


@pytest.mark.parametrize("workers", ["off"], indirect=True)
def test_an_edge_too_small_for_the_layer_answers_from_a_shallower_exit(workers: Workers) -> None:
    workers.assert_equal(workers.samples())
    workers.kill("worker1", "worker2")
    workers.signal(signal.SIGSTOP, "worker3")
    time.sleep(2 * FLOW_S)
    lacking = workers.samples()
    for answer in workers.answers(lacking):
        assert (answer.exit, answer.quality) == ("local", "degraded"), answer
        assert answer.members == EVERYONE
    assert workers.offload().given_up > 0
    workers.signal(signal.SIGCONT, "worker3")  # the fourth of six: enough
    workers.wait_until(lambda: workers.offload().enough, "enough")
    workers.assert_equal(workers.samples())
    assert workers.offload().computed_here == 0


def test_the_demo_as_a_user_runs_it(ddnn, scenes_bundle, tmp_path: Path) -> None:
    """Two of six workers are killed, one comes back: the report waits for it, and says what became
    of whom."""
    command = [
        *ddnn,
        "demo",
        "--http-port",
        str(free_port()),
        "--headless",
        "--json",
        "--samples",
        "60",
        "--rate",
        "20",
        "--bundle",
        str(scenes_bundle),
        "--redundancy",
        "coded",
        "--workers",
        "6",
        "--tolerate",
        "2",
        "--threshold",
        "local=0",
        "--kill",
        "worker1@15",
        "--kill",
        "worker2@15",
        "--restart",
        "worker1@58",
        "--deadline-s",
        str(DEADLINE_S),
        "--window-s",
        "0.4",
    ]
    done = run(command, DDNN_HOME=str(tmp_path), DDNN_LAYER_TIMEOUT_S="0.6")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["answered_by_deadline"], report["undelivered"]) == (60, 0)
    assert report["quality"] == {"full": 60, "degraded": 0, "late": 0}
    assert report["exit_share"]["local"] == 0
    offload = report["offload"]
    assert (offload["pieces"], "Any 4 of the shards" in offload["description"]) == (6, True)
    assert offload["combined"] >= 60
    assert (offload["computed_here"], offload["given_up"]) == (0, 0)
    states = {name: worker["state"] for name, worker in offload["workers"].items()}
    assert states == {**dict.fromkeys(WORKERS, "live"), "worker2": "lost"}
    assert "kill worker2 after 15 samples" in done.stderr
