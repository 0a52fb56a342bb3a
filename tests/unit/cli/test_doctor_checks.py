"""Checks run in order; one that hangs or raises does not keep the others from running."""

from __future__ import annotations

import threading

import pytest

from ddnn.cli.doctor.check import Check, Finding, run_checks, split_remedy
from ddnn.errors import LinkError, SectionError


def collect_findings(*checks: Check) -> dict[str, Finding]:
    return {name: finding for name, finding, _ in run_checks(checks)}


def make_failing_check(error: Exception) -> Check:
    def run() -> Finding:
        raise error

    return Check("it", run)


def test_a_check_that_needs_a_failed_one_is_skipped() -> None:
    ran: list[str] = []

    def check(name: str, finding: Finding, *needs: str) -> Check:
        def run() -> Finding:
            ran.append(name)
            return finding

        return Check(name, run, needs)

    found = collect_findings(
        check("a", Finding.warning("slow", "wait")),
        check("b", Finding.failed("no", "mend it"), "a"),
        check("c", Finding.ok("yes"), "b"),
        check("d", Finding.ok("yes"), "c"),
        check("e", Finding.ok("yes"), "a"),
    )
    assert ran == ["a", "b", "e"]  # a warning skips no check
    assert [found[name].outcome for name in "abcde"] == [
        "warning",
        "failed",
        "skipped",
        "skipped",
        "ok",
    ]
    assert "without b" in found["d"].message  # the cause, not the check between


def test_a_check_that_needs_a_skipped_one_is_skipped() -> None:
    found = collect_findings(
        Check("a", lambda: Finding.skipped("nothing to see", "name it")),
        Check("b", lambda: Finding.ok("never asked"), ("a",)),
    )
    assert found["b"].outcome == "skipped"
    assert (found["a"].exit_code, found["b"].exit_code) == (0, 0)


def test_an_error_gives_its_message_remedy_and_exit_code() -> None:
    found = collect_findings(
        make_failing_check(SectionError("cam1 computes nonsense; export it again"))
    )["it"]
    assert found == Finding("failed", "cam1 computes nonsense", "export it again", 7)


def test_a_defect_is_reported_and_later_checks_still_run() -> None:
    found = collect_findings(
        make_failing_check(KeyError("x")), Check("next", lambda: Finding.ok("yes"))
    )
    assert found["it"].outcome == "failed"
    assert "KeyError" in found["it"].message
    assert found["it"].exit_code == 1
    assert found["next"].outcome == "ok"


def test_a_check_that_hangs_ends_at_its_deadline() -> None:
    held = threading.Event()

    def hang() -> Finding:
        held.wait(30)
        return Finding.ok("too late")

    hanging = Check("it", hang, deadline_s=0.05, exit_code=LinkError.exit_code)
    ((_, found, took_s),) = run_checks([hanging])
    held.set()
    assert (found.outcome, found.exit_code) == ("failed", 8)
    assert took_s < 5


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("no file; copy it", ("no file", "copy it")),
        ("a; b; mend it", ("a; b", "mend it")),
        ("no remedy", ("no remedy", "")),
        ("", ("", "")),
    ],
)
def test_the_remedy_stands_behind_the_last_semicolon(
    message: str, expected: tuple[str, str]
) -> None:
    assert split_remedy(message) == expected
