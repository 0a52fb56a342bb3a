"""The `ddnn` command as a user has it: real processes, standard output, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ddnn.adapters.broker import free_port
from tests.parts import need_mosquitto

DEMO_S = 150  # the longest that anything here may take
NODES = 9  # broker, cloud, edge, six devices
# `ddnn` where TensorFlow cannot be imported: only training needs its seconds and megabytes
WITHOUT_TENSORFLOW = """
import sys
sys.modules.update(tensorflow=None, keras=None)
from ddnn.cli import main
main()
"""


def run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **variables}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=DEMO_S, env=environ, check=False
    )


def parse_one_object(text: str) -> dict[str, Any]:
    """Standard output is one line with one JSON object and nothing else; NaN is no JSON."""
    assert text.count("\n") == 1, text

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} in JSON")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def assert_one_line_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0], lines


# ------------------------------------------------------------ train and evaluate


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of one's own: the colour says the class."""
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 2
    images = generator.integers(0, 80, (90, 3, 32, 32, 3), np.uint8)
    images[labels == 1, :, :, :, 0] += 150
    path = tmp_path_factory.mktemp("photos") / "photos.npz"
    np.savez(path, images=images, labels=labels, classes=np.array(["dark", "red"]))
    return path


@pytest.fixture(scope="module")
def trained_bundle(
    ddnn: list[str], photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("trained") / "bundle"
    done = run(
        [
            *ddnn,
            "train",
            "--data",
            f"npz:{photos}",
            "--out",
            str(out),
            "--devices",
            "3",
            "--steps",
            "6",
            "--bits",
            "4",
            "--json",
        ],
    )
    assert done.returncode == 0, done.stderr
    assert "training" in done.stderr  # progress
    table = [line.split()[1:3] for line in done.stderr.splitlines() if line.startswith("ddnn: ")]
    assert table[:3] == [["class", "samples"], ["dark", "31/7/7"], ["red", "31/7/7"]]
    return out, parse_one_object(done.stdout)


def test_train_then_evaluate(ddnn: list[str], photos: Path, trained_bundle: Any) -> None:
    bundle, summary = trained_bundle
    assert set(summary["validation_accuracy"]) == {"local", "edge", "cloud", "overall"}
    done = run([*ddnn, "evaluate", str(bundle), "--data", f"npz:{photos}", "--json"])
    assert done.returncode == 0, done.stderr
    report = parse_one_object(done.stdout)
    more = {"reduction_jpeg", "device_accuracy", "score_type", "bundle"}
    assert set(report) - more == {
        "accuracy",
        "majority",
        "recall",
        "exit_share",
        "bytes_per_sample_per_device",
        "raw_bytes",
        "jpeg_bytes",
        "reduction",
        "missing",
        "thresholds",
        "samples",
    }
    tiers = ["local", "edge", "cloud"]
    assert list(report["accuracy"]) == [*tiers, "overall"]
    assert list(report["exit_share"]) == tiers
    assert sum(report["exit_share"].values()) == pytest.approx(1)
    assert list(report["missing"]) == ["1", "2", "3"]
    assert report["missing"]["3"] is None  # of three devices, never all
    assert set(report["thresholds"]) == {"local", "edge"}
    assert report["thresholds"] == summary["thresholds"]
    assert report["raw_bytes"] == 32 * 32 * 3
    assert 10 < report["samples"] < 20  # 15 %
    sent = report["bytes_per_sample_per_device"]
    assert report["reduction"] == pytest.approx(report["raw_bytes"] / sent)
    per_score = {"float32": 4, "float16": 2, "uint8": 1}[report["score_type"]]
    manifest = json.loads((bundle / "manifest.json").read_text())
    feature_bytes = -(-int(np.prod(manifest["device_features"])) // 8)
    escalated = 1 - report["exit_share"]["local"]
    assert sent == pytest.approx(2 * per_score + escalated * feature_bytes)  # the paper's formula
    for value in [*report["accuracy"].values(), report["missing"]["1"], report["missing"]["2"]]:
        assert 0 <= value <= 1


def test_what_cannot_be_evaluated_is_said_in_one_line(
    ddnn: list[str], photos: Path, trained_bundle: Any, tmp_path: Path
) -> None:
    bundle = str(trained_bundle[0])
    broken = tmp_path / "broken.npz"
    broken.write_bytes(photos.read_bytes()[:1000])
    many = tmp_path / "many.npz"
    generator = np.random.default_rng(0)
    np.savez(
        many,
        images=generator.integers(1, 99, (90, 3, 32, 32, 3), np.uint8),
        labels=np.arange(90) % 7,
    )
    for data, words in (
        ("nonsense", "unknown name"),
        ("npz:/nowhere.npz", "/nowhere.npz"),
        (f"npz:{broken}", "broken.npz"),
        (f"npz:{many}", "classes"),
    ):
        assert_one_line_error(run([*ddnn, "evaluate", bundle, "--data", data, "--json"]), words)
    assert_one_line_error(
        run([*ddnn, "evaluate", bundle, "--data", f"npz:{photos}", "--objects", "9"]), "--objects"
    )
    assert_one_line_error(
        run([*ddnn, "evaluate", bundle, "--data", f"npz:{photos}", "--objects", "x"]), "--objects"
    )
    assert_one_line_error(run([*ddnn, "evaluate", str(tmp_path)]), "is not a bundle")


def test_what_cannot_be_trained_is_said_in_one_line(
    ddnn: list[str], photos: Path, trained_bundle: Any, tmp_path: Path
) -> None:
    bundle, _ = trained_bundle
    before = {file: file.stat().st_mtime_ns for file in bundle.iterdir()}
    new = str(tmp_path / "new")
    for flags, words in (
        (["--out", str(bundle)], "holds a bundle already"),
        (["--out", new, "--data", "nonsense"], "unknown name"),
        (["--out", new, "--section", "sky=a:b"], "--section"),
        (["--out", new, "--devices", "4", "--steps", "1"], "views"),
    ):
        assert_one_line_error(run([*ddnn, "train", "--data", f"npz:{photos}", *flags]), words)
    assert {file: file.stat().st_mtime_ns for file in bundle.iterdir()} == before
    assert not (tmp_path / "new" / "manifest.json").exists()
    done = run([*ddnn, "train", "--configuration", "g", "--out", new])
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_help_has_examples(ddnn: list[str]) -> None:
    assert "Exit codes: 0 done" in run([*ddnn, "--help"]).stdout
    for command in ("train", "evaluate", "demo"):
        done = run([*ddnn, command, "--help"])
        assert done.returncode == 0
        assert f"  ddnn {command} " in done.stdout.partition("Examples:")[2]


# ------------------------------------------------------------------------- demo


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
        until_s = time.monotonic() + DEMO_S
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


@pytest.mark.priority
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
    out, err = running.process.communicate(timeout=DEMO_S)
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
        until_s = time.monotonic() + DEMO_S
        while "all nodes are up" not in running.process.stderr.readline():
            assert time.monotonic() < until_s
            assert running.process.poll() is None
        assert running.watch() >= NODES
        time.sleep(1.5)  # a while of answers
    running.process.send_signal(number)
    _, err = running.process.communicate(timeout=DEMO_S)
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
