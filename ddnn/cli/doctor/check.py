"""Checks that run one after the other, each within a deadline.

A check that needs a failed check is skipped, so that one cause is reported once.
"""

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
    """The outcome of a check, the finding in one sentence, and the remedy."""

    outcome: Outcome
    message: str
    remedy: str = ""
    exit_code: int = 0

    @classmethod
    def ok(cls, message: str) -> Finding:
        return cls("ok", message)

    @classmethod
    def warning(cls, message: str, remedy: str) -> Finding:
        return cls("warning", message, remedy)

    @classmethod
    def failed(cls, message: str, remedy: str, error: type[DdnnError] = ConfigError) -> Finding:
        """`error` determines the exit code."""
        return cls("failed", message, remedy, error.exit_code)

    @classmethod
    def skipped(cls, message: str, remedy: str = "") -> Finding:
        return cls("skipped", message, remedy)


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `needs`: the names of the checks that must succeed before it runs."""

    name: str
    run: Callable[[], Finding]
    needs: tuple[str, ...] = ()
    deadline_s: float = 10.0
    exit_code: int = DdnnError.exit_code  # where it does not end within the deadline


def run_checks(checks: Sequence[Check]) -> Iterator[tuple[str, Finding, float]]:
    """Yield each check's name, finding and duration in seconds, in order."""
    causes: dict[str, str] = {}  # check without a result -> the check that is the cause
    for check in checks:
        cause = next((causes[name] for name in check.needs if name in causes), None)
        started_s = time.monotonic()
        if cause is None:
            finding = _run_within_deadline(check)
        else:
            finding = Finding.skipped(f"not examined without {cause}: see above")
        if finding.outcome in ("failed", "skipped"):
            causes[check.name] = cause or check.name
        yield check.name, finding, time.monotonic() - started_s


def split_remedy(message: str) -> tuple[str, str]:
    """The problem and its remedy: error messages of ddnn name it after the last semicolon."""
    problem, _, remedy = message.rpartition("; ")
    return (problem, remedy) if problem else (message, "")


def _run_within_deadline(check: Check) -> Finding:
    """Run the check in a thread of its own: names, disks and drivers may hang."""
    findings: list[Finding] = []

    def run() -> None:
        try:
            findings.append(check.run())
        except DdnnError as error:
            findings.append(Finding.failed(*split_remedy(str(error)), type(error)))
        except Exception as error:  # a defect here must not hide what the other checks find
            message = f"{type(error).__name__}: {error}"
            remedy = "this is a defect of ddnn: report it"
            findings.append(Finding.failed(message, remedy, DdnnError))

    thread = threading.Thread(target=run, name=check.name, daemon=True)
    thread.start()
    thread.join(check.deadline_s)
    if findings:
        return findings[0]
    message = f"did not end within {check.deadline_s:.0f} s"
    return Finding("failed", message, "it hangs: run it by hand", check.exit_code)
