"""What several end-to-end tests ask of a running site."""

from __future__ import annotations

import time

import pytest


def is_recovered(site) -> bool:
    """Whether the last second's samples were answered in full by all members."""
    now = site.tick()
    newest = [s.answer for s in site.list_stored(range(now - int(2 * site.rate_hz), now - 8))]
    last = newest[-5:]
    return len(last) == 5 and all(a.quality == "full" and not a.late for a in last)


def wait_until(true, timeout_s: float, what: str) -> None:
    until_s = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > until_s:
            pytest.fail(f"{what}: not within {timeout_s} s")
        time.sleep(0.2)


def list_missing(site, samples: range) -> list[int]:
    """The samples that the cameras have taken and that no stored answer is of."""
    stored = {record.answer.sample for record in site.list_stored(samples)}
    return [sample for sample in samples if sample not in stored and site.is_expected(sample)]


def wait_for_answers(site, samples: range, timeout_s: float) -> list[int]:
    """Wait for a stored answer to each sample; returns the samples that have none."""
    until_s = time.monotonic() + timeout_s
    while (missing := list_missing(site, samples)) and time.monotonic() < until_s:
        time.sleep(0.2)
    return missing
