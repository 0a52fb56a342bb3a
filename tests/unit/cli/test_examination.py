"""Checks run in order; one that hangs, or breaks, takes none of the others with it."""

from __future__ import annotations

import threading

import pytest

from ddnn.cli.examination import Check, Finding, examine, failed, ok, parted, skipped, warning
from ddnn.errors import LinkError, SectionError


def outcomes(*checks: Check) -> dict[str, Finding]:
    return {name: finding for name, finding, _ in examine(checks)}


def raising(error: Exception) -> Check:
    def run() -> Finding:
        raise error

    return Check("it", run)


def test_what_needs_a_failed_check_is_not_run() -> None:
    ran: list[str] = []

    def check(name: str, finding: Finding, *needs: str) -> Check:
        def run() -> Finding:
            ran.append(name)
            return finding

        return Check(name, run, needs)

    found = outcomes(
        check("a", warning("slow", "wait")),
        check("b", failed("no", "mend it"), "a"),
        check("c", ok("yes"), "b"),
        check("d", ok("yes"), "c"),
        check("e", ok("yes"), "a"),
    )
    assert ran == ["a", "b", "e"]  # a warning stops nobody
    assert [found[name].outcome for name in "abcde"] == [
        "warning",
        "failed",
        "skipped",
        "skipped",
        "ok",
    ]
    assert "without b" in found["d"].says  # the cause, not the link between


def test_what_was_skipped_is_no_ground_to_go_on() -> None:
    found = outcomes(
        Check("a", lambda: skipped("nothing to see", "name it")),
        Check("b", lambda: ok("never asked"), ("a",)),
    )
    assert found["b"].outcome == "skipped"
    assert (found["a"].exit_code, found["b"].exit_code) == (0, 0)


def test_an_error_is_its_sentence_its_remedy_and_its_exit_code() -> None:
    found = outcomes(raising(SectionError("cam1 computes nonsense; export it again")))["it"]
    assert found == Finding("failed", "cam1 computes nonsense", "export it again", 7)


def test_a_defect_is_told_and_hides_nothing() -> None:
    found = outcomes(raising(KeyError("x")), Check("next", lambda: ok("yes")))
    assert found["it"].outcome == "failed"
    assert "KeyError" in found["it"].says
    assert found["it"].exit_code == 1
    assert found["next"].outcome == "ok"


def test_a_check_that_hangs_ends_at_its_deadline() -> None:
    held = threading.Event()

    def hang() -> Finding:
        held.wait(30)
        return ok("too late")

    hanging = Check("it", hang, deadline_s=0.05, exit_code=LinkError.exit_code)
    ((_, found, took_s),) = examine([hanging])
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
    assert parted(message) == expected
