"""`ddnn demo` as a user has it: real processes, which all end with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ddnn.adapters.broker import free_port
from tests.integration.commands import COMMAND_S, parse_one_object, run
from tests.parts import need_mosquitto

NODES = 9  # broker, cloud, edge, six devices
# `ddnn` where TensorFlow cannot be imported: only training needs its seconds and megabytes
WITHOUT_TENSORFLOW = """
import sys
sys.modules.update(tensorflow=None, keras=None)
from ddnn.cli import main
main()
"""


class Demo:
    """`ddnn demo` as a process, with all the processes that it started."""

    def __init__(self, command: list[str], home: Path, scratch: Path) -> None:
        scratch.mkdir()
        self.scratch = scratch
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "DDNN_HOME": str(home), "TMPDIR": str(scratch)},
        )
        self.children: dict[int, psutil.Process] = {}

    def watch(self) -> int:
        """How many processes it has started so far."""
        try:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self.children.setdefault(child.pid, child)
        except psutil.NoSuchProcess:
            pass
        return len(self.children)

    def wait_until(self, true: Callable[[], object]) -> None:
        until_s = time.monotonic() + COMMAND_S
        while not true():
            assert time.monotonic() < until_s, "not in time"
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)

    def assert_nothing_left(self) -> None:
        _, alive = psutil.wait_procs(list(self.children.values()), timeout=1)
        assert alive == []
        assert list(self.scratch.iterdir()) == []

    def end(self) -> None:
        for process in self.children.values():
            if process.is_running():
                process.kill()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def demo(home: Path, tmp_path: Path, scenes_bundle: Path) -> Iterator[Callable[..., Demo]]:
    """Starts a demo of a trained bundle, which never imports TensorFlow."""
    started: list[Demo] = []

    def start(*flags: str) -> Demo:
        ddnn = [sys.executable, "-c", WITHOUT_TENSORFLOW]
        command = [*ddnn, "demo", "--bundle", str(scenes_bundle), *flags]
        command += ["--http-port", str(free_port())]  # other demos run at the same time
        started.append(Demo(command, home, tmp_path / f"scratch{len(started)}"))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.mark.timed
@pytest.mark.parametrize("broker", ["mosquitto", "embedded"])
def test_a_headless_demo_answers_every_sample(demo: Callable[..., Demo], broker: str) -> None:
    if broker == "mosquitto":
        need_mosquitto()
    running = demo(
        "--headless",
        "--samples",
        "30",
        "--json",
        "--broker",
        broker,
        "--kill",
        "cam3@10",
        "--rate",
        "20",
        "--deadline-s",
        "1.5",
        "--window-s",
        "0.4",
    )
    running.wait_until(lambda: running.watch() >= NODES)
    out, err = running.process.communicate(timeout=COMMAND_S)
    assert running.process.returncode == 0, err
    report = parse_one_object(out)
    assert {
        "samples",
        "answered",
        "accuracy",
        "exit_share",
        "bytes_per_sample_per_device",
        "reduction",
        "latency_ms",
        "quality",
        "drops",
    } <= set(report)
    assert (report["samples"], report["answered"]) == (30, 30)
    assert report["answered_by_deadline"] == 30
    assert report["undelivered"] == 0
    tiers = {"local", "edge", "cloud", "device"}
    assert set(report["accuracy"]) == tiers | {"overall"}
    assert set(report["exit_share"]) == tiers
    assert sum(report["exit_share"].values()) == pytest.approx(1)
    assert set(report["bytes_per_sample_per_device"]) == {"payload", "wire"}
    spent = report["bytes_per_sample_per_device"]
    assert 0 < spent["payload"] < spent["wire"] < 32 * 32 * 3
    assert set(report["latency_ms"]) <= tiers
    for figures in report["latency_ms"].values():
        assert 0 < figures["p50"] <= figures["p99"] < 2000
    assert set(report["quality"]) == {"full", "degraded", "late"}
    assert report["quality"]["full"] + report["quality"]["degraded"] == 30
    assert report["quality"]["degraded"] >= 10  # cam3 was killed after 10
    assert "kill cam3 after 10 samples" in err
    assert "Traceback" not in err
    running.assert_nothing_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["live", "starting"])
def test_a_signal_ends_every_process(
    demo: Callable[..., Demo], number: signal.Signals, when: str
) -> None:
    running = demo("--broker", "auto")
    if when == "starting":
        running.wait_until(lambda: running.watch() >= 3)
    else:
        assert running.process.stderr is not None
        until_s = time.monotonic() + COMMAND_S
        while "all nodes are up" not in running.process.stderr.readline():
            assert time.monotonic() < until_s
            assert running.process.poll() is None
        assert running.watch() >= NODES
        time.sleep(1.5)  # a while of answers
    running.process.send_signal(number)
    _, err = running.process.communicate(timeout=COMMAND_S)
    assert running.process.returncode == (0 if when == "live" else 1), err
    assert "Traceback" not in err
    running.assert_nothing_left()


def test_a_demo_that_cannot_be_is_said_in_one_line(
    ddnn: list[str], scenes_bundle: Path, home: Path
) -> None:
    for flags, words in (
        (["--kill", "cam9@3"], "no such node"),
        (["--kill", "cam3"], "expected NODE@N"),
        (["--samples", "0"], "--samples"),
        (["--rate", "0"], "--rate"),
        (["--deadline-s", "0.1"], "window"),
        (["--bundle", "/nowhere"], "is not a bundle"),
    ):
        command = [*ddnn, "demo", "--headless", "--bundle", str(scenes_bundle), *flags]
        done = run(command, DDNN_HOME=str(home))
        assert done.returncode in (1, 2), done
        assert done.stdout == ""
        errors = re.findall(r"^error: .*$", done.stderr, re.MULTILINE)
        assert len(errors) == 1, done.stderr
        assert words in errors[0]
        assert "Traceback" not in done.stderr
