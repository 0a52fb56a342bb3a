"""Training over real processes, which are killed and stopped, equals plain training."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.harness.plain_training import train_plainly, write_pictures
from ddnn.local_site.pipeline_demo import SITE, PipelineSite
from ddnn.local_site.pipeline_training import TrainingRequest
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.fleet import Fleet
from tests.parts import need_mosquitto

IN_TIME_S = 180.0
CENTRAL = "central"
MODEL, BATCH, BATCHES, MICRO_BATCHES = "mlp-24-16-16", 8, 280, 4
RATE = 0.002  # so low that losses do not end at 0
SLOW = 6.0  # the workers', so that training goes on while nodes are killed


class Training:
    """A site with two workers, and `ddnn pipeline train` as processes."""

    def __init__(self, path: Path, images: Path) -> None:
        self.path, self.images = path, images
        self.site = PipelineSite("mosquitto", path)
        self.site.start({"worker1": SLOW, "worker2": SLOW})

    @property
    def fleet(self) -> Fleet:
        return self.site.fleet

    def start(self, name: str, workers: str) -> None:
        """Start a central node; `name` names its bundle too."""
        flags = {
            "node": CENTRAL,
            "site": SITE,
            "broker-port": self.site.port,
            "model": MODEL,
            "data": f"npz:{self.images}",
            "out": self.path / name,
            "workers": workers,
            "wait-s": IN_TIME_S,
            "batch": BATCH,
            "batches": BATCHES,
            "micro-batches": MICRO_BATCHES,
            "restore": "consistent",
            "learning-rate": RATE,
            "global-every": 4,
            "threads": 1,
        }
        words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "ddnn.cli", "pipeline", "train", *words]
        self.fleet.start(name, [*command, "--equal-capacities", "--json"])

    def make_request(self, name: str) -> TrainingRequest:
        """The same training as a request."""
        return TrainingRequest(
            model=MODEL,
            data=f"npz:{self.images}",
            out=self.path / name,
            checkpoint=self.path / f"{name}.checkpoint.npz",
            batch=BATCH,
            batches=BATCHES,
            micro_batches=MICRO_BATCHES,
            learning_rate=RATE,
        )

    def read_log(self, name: str) -> str:
        return (self.path / "logs" / f"{name}.log").read_text(errors="replace")

    def wait(self, name: str, is_true: Callable[[str], object]) -> None:
        """Wait until the log of a process fulfils a condition."""
        until_s = time.monotonic() + IN_TIME_S
        while not is_true(self.read_log(name)):
            assert time.monotonic() < until_s, self.read_log(name)
            time.sleep(0.1)

    def read_report(self, name: str) -> dict:
        self.wait(name, lambda log: not self.fleet.is_alive(name))
        lines = self.read_log(name).splitlines()
        found = [line for line in lines if line.startswith("{")]
        assert found, "\n".join(lines)
        return json.loads(found[-1])


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    need_mosquitto()
    training = Training(tmp_path, write_pictures(tmp_path / "images.npz"))
    yield training
    training.site.close()


def is_without(node: str) -> Callable[[str], bool]:
    """Whether a log's latest layout does without a node."""

    def judge(log: str) -> bool:
        layouts = [line for line in log.splitlines() if ": layout: " in line]
        return bool(layouts) and node not in layouts[-1]

    return judge


@pytest.mark.timeout(480)
def test_a_training_that_loses_all_its_nodes_in_turn_equals_plain_training(
    training: Training,
) -> None:
    training.start("piped", "2")
    checkpoint = Path(f"{training.path / 'piped'}.checkpoint.npz")
    training.wait("piped", lambda log: checkpoint.exists())
    training.fleet.send_signal("worker1", signal.SIGKILL)
    training.wait("piped", is_without("worker1"))
    training.fleet.send_signal("worker2", signal.SIGSTOP)
    training.wait("piped", is_without("worker2"))
    training.fleet.send_signal("piped", signal.SIGKILL)
    training.fleet.send_signal("worker2", signal.SIGCONT)
    assert not (training.path / "piped").exists()
    training.start("piped", "announced")
    report = training.read_report("piped")
    assert "goes on from" in training.read_log("piped")
    assert report["stages"][0]["node"] == CENTRAL

    losses, test_loss, test_accuracy = train_plainly(training.make_request("plain"))
    reported = {n: loss for n, loss in enumerate(report["losses"]) if loss is not None}
    assert reported.items() <= dict(enumerate(losses)).items()
    assert len(reported) >= BATCHES // 4
    assert min(losses) > 0.01
    assert report["test_loss"] == test_loss
    assert report["test_accuracy"] == test_accuracy > 0.5
    assert read_manifest(training.path / "piped")[0].hierarchy.devices == ("cam1",)
    assert not checkpoint.exists()
