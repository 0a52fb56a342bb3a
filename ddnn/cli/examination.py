"""Checks in order, each within a deadline; what needs a failed one is skipped, not blamed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ddnn.errors import ConfigError, DdnnError

Outcome = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, in one sentence, and what to do about it."""

    outcome: Outcome
    says: str
    remedy: str = ""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `needs`: those without which it says nothing."""

    name: str
    run: Callable[[], Finding]
    needs: tuple[str, ...] = ()
    deadline_s: float = 10.0
    exit_code: int = DdnnError.exit_code  # where it does not end in time


def ok(says: str) -> Finding:
    return Finding("ok", says)


def warning(says: str, remedy: str) -> Finding:
    return Finding("warning", says, remedy)


def failed(says: str, remedy: str, error: type[DdnnError] = ConfigError) -> Finding:
    return Finding("failed", says, remedy, error.exit_code)


def skipped(says: str, remedy: str = "") -> Finding:
    return Finding("skipped", says, remedy)


def examine(checks: Sequence[Check]) -> Iterator[tuple[str, Finding, float]]:
    """Each check's name, finding and duration, as they come."""
    lost: dict[str, str] = {}  # check -> the one that it, or what it needs, was lost for
    for check in checks:
        cause = next((lost[name] for name in check.needs if name in lost), None)
        started_s = time.monotonic()
        finding = (
            _in_time(check)
            if cause is None
            else skipped(f"not examined without {cause}: see above")
        )
        if finding.outcome in ("failed", "skipped"):
            lost[check.name] = cause or check.name
        yield check.name, finding, time.monotonic() - started_s


def _in_time(check: Check) -> Finding:
    """Names, disks and drivers may hang; who examines them does not."""
    found: list[Finding] = []

    def run() -> None:
        try:
            found.append(check.run())
        except DdnnError as error:
            found.append(failed(*parted(str(error)), type(error)))
        except Exception as error:  # a defect here must not hide what the others find
            says = f"{type(error).__name__}: {error}"
            found.append(failed(says, "this is a defect of ddnn: report it", DdnnError))

    thread = threading.Thread(target=run, name=check.name, daemon=True)
    thread.start()
    thread.join(check.deadline_s)
    if found:
        return found[0]
    says = f"did not end within {check.deadline_s:.0f} s"
    return Finding("failed", says, "something hangs there: try it by hand", check.exit_code)


def parted(message: str) -> tuple[str, str]:
    """What is wrong and its remedy: messages of ddnn name it behind the last semicolon."""
    says, _, remedy = message.rpartition("; ")
    return (says, remedy) if says else (message, "")
