"""Benchmarks of two revisions in turn."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from benchmarks.harness.report import flatten
from benchmarks.paired import compare, run_benchmark, select_numbers


def test_paired_runs_are_compared_by_the_numbers_that_all_reports_have():
    reports = [{"a": {"p50_ms": 2.0 * n, "holds": True}, "steps": [{"x": n}]} for n in (1, 2, 3)]
    assert flatten(reports[0]) == {"a.p50_ms": 2.0, "a.holds": True, "steps.0.x": 1}
    before = [select_numbers(report, []) for report in reports]
    after = [{**numbers, "new": 1.0, "a.p50_ms": 1.0} for numbers in before]
    found = compare(before, after)
    assert list(found) == ["a.p50_ms", "steps.0.x"]
    assert found["a.p50_ms"]["ratio"] == 0.25
    assert found["a.p50_ms"]["before_values"] == [2.0, 4.0, 6.0]
    assert select_numbers(reports[0], ["steps.*"]) == {"steps.0.x": 1.0}


def test_a_benchmark_that_is_interrupted_ends_its_own_processes(tmp_path: Path):
    """It receives SIGTERM, and has time; SIGKILL would leave its site behind."""
    (tmp_path / "slow.py").write_text(
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
        "pathlib.Path('began').touch()\n"
        "try:\n"
        "    time.sleep(60)\n"
        "finally:\n"
        "    pathlib.Path('ended').touch()\n"
    )

    def interrupt() -> None:
        until_s = time.monotonic() + 30
        while not (tmp_path / "began").exists() and time.monotonic() < until_s:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(tmp_path, ["slow"], 60.0)
    assert (tmp_path / "ended").exists()
