"""Processes of this machine: what starts them, and the processor time and memory they use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil

from ddnn.runtime.interrupts import interrupt_once

_INTERRUPTS = ExitStack()  # until the program ends
ROOT = Path(__file__).resolve().parents[2]  # of this checkout
TERMINATE_S = 20.0
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
Options = TypeVar("Options", bound=msgspec.Struct)


def module_command(module: str, options: msgspec.Struct) -> list[str]:
    """The command that runs a module of the benchmarks with these options; see `read_options`."""
    return [sys.executable, "-m", module, msgspec.json.encode(options).decode()]


def read_options(kind: type[Options]) -> Options:
    """The options that `module_command` gave to this process."""
    return msgspec.json.decode(sys.argv[1], type=kind)


def make_flags(options: Mapping[str, object]) -> list[str]:
    """The words of a command line: --key value for each option."""
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


def app_command(module: str, options: Mapping[str, object]) -> list[str]:
    return [sys.executable, "-m", module, *make_flags(options)]


def environment_of(tree: Path) -> dict[str, str]:
    """The environment in which Python imports the packages of a checkout."""
    return {**os.environ, "PYTHONPATH": str(tree)}


@contextmanager
def temporary_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ddnn-bench-") as directory:
        yield Path(directory)


def interrupt_on_sigterm() -> None:
    """Let SIGTERM and SIGINT raise KeyboardInterrupt, so that no started process is left behind.

    SIGINT is set, too, because a shell that starts a program in the background has it ignored. Only
    the first signal counts: a second one would interrupt the end of the processes.
    """
    _INTERRUPTS.enter_context(interrupt_once((signal.SIGINT, signal.SIGTERM)))


def read_report_of(command: Sequence[str], timeout_s: float) -> dict[str, Any]:
    """The report that a program prints as its last line; ends this process where it fails.

    Where this process is interrupted, or the time is over, the program ends its own processes.
    """
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        output, _ = read_to_end(process, timeout_s)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}")
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report


def read_to_end(process: subprocess.Popen[str], timeout_s: float) -> tuple[str, str]:
    """What a process prints on its two outputs; in any case it ends, with its own processes."""
    try:
        return process.communicate(timeout=timeout_s)
    finally:
        end_process(process)


def end_process(process: subprocess.Popen[str]) -> None:
    """End a process, which has time to end its own."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(TERMINATE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def resident_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 2**20


class CpuMeter:
    """The processor time that processes use from the creation of the meter on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        """pids: process ids by name."""
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._began_s = time.monotonic()
        self._before_s = self._total_s()

    def _total_s(self) -> dict[str, float]:
        times = {name: process.cpu_times() for name, process in self._processes.items()}
        return {name: of.user + of.system for name, of in times.items()}

    def used_s(self) -> dict[str, float]:
        """Seconds of user and system time, by name."""
        return {name: s - self._before_s[name] for name, s in self._total_s().items()}

    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def busy_cores(self) -> dict[str, float]:
        """How many cores each process keeps busy."""
        elapsed_s = self.elapsed_s()
        return {name: used_s / elapsed_s for name, used_s in self.used_s().items()}
