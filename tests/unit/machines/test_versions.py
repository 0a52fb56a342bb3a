"""Several versions at a time: jobs keep theirs, all switch at one tick, the old one is freed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddnn.errors import LocalProtocolError
from ddnn.machines.versions import Versions


def test_jobs_begin_with_the_version_of_their_tick_and_keep_it() -> None:
    versions = Versions("a", 1)
    assert versions.begin(5) == ("a", 1)
    assert versions.prepare("b", 2) is None
    versions.note_loaded("b")
    versions.switch("b", 10)
    assert versions.begin(9) == ("a", 1)  # captured before the switch, asked for after it
    assert versions.begin(10) == ("b", 2)
    assert versions.free(10) == []  # two jobs of a are open
    versions.end("a")
    assert versions.free(11) == []
    versions.end("a")
    assert versions.free(11) == [("a", 1)]
    assert versions.live == {"b": 2}
    assert versions.begin(3) == ("b", 2)  # a straggler of before: there is no other version


def test_of_two_that_switch_at_one_tick_the_later_counts() -> None:
    versions = Versions("a", 1)
    for version, value in (("b", 2), ("c", 3)):
        versions.prepare(version, value)
        versions.note_loaded(version)
        versions.switch(version, 7)
    assert versions.current == "c"
    assert versions.begin(7) == ("c", 3)
    assert versions.free(7) == [("a", 1), ("b", 2)]


def test_only_the_newest_of_those_that_wait_is_loaded() -> None:
    versions = Versions("a", 1)
    versions.prepare("b", 2)
    assert versions.prepare("c", 3) == 2
    assert versions.next == "c"
    assert versions.discard("c") == 3
    assert versions.next is None
    assert versions.current == "a"


@pytest.mark.parametrize(
    "step",
    [
        lambda versions: versions.switch("b", 1),  # not loaded yet
        lambda versions: versions.prepare("a", 1),
        lambda versions: versions.prepare("b", 1),
        lambda versions: versions.discard("a"),
        lambda versions: versions.note_loaded("a"),
        lambda versions: (versions.note_loaded("b"), versions.switch("b", -1)),
    ],
)
def test_what_cannot_be_is_refused(step) -> None:
    versions = Versions("a", 1)
    versions.prepare("b", 2)
    with pytest.raises(LocalProtocolError):
        step(versions)


@given(st.lists(st.tuples(st.sampled_from(["begin", "end", "switch", "free"]), st.integers(0, 3))))
def test_a_version_is_freed_after_its_last_job_and_never_before(steps) -> None:
    versions, open_jobs, tick, made, agreed = Versions("0", 0), [], 0, 0, 0
    for what, number in steps:
        tick += 1
        if what == "begin":
            open_jobs.append(versions.begin(tick)[0])
        elif what == "end" and open_jobs:
            versions.end(open_jobs.pop(number % len(open_jobs)))
        elif what == "switch":
            made += 1
            versions.prepare(str(made), made)
            versions.note_loaded(str(made))
            agreed = max(agreed, tick + number)
            versions.switch(str(made), agreed)
        elif what == "free":
            for version, _ in versions.free(tick):
                assert version not in open_jobs
    while open_jobs:
        versions.end(open_jobs.pop())
    versions.free(tick + 10)
    assert list(versions.live) == [str(made)]
