"""Jobs with deadlines, against a dictionary that keeps everything."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ddnn.machines.jobs import Jobs

KEYS = st.integers(0, 12)
STEPS = st.sampled_from([0.0, 0.25, 1.0, 3.0])


class JobsAgainstNaive(RuleBasedStateMachine):
    """The model: insertion-ordered dictionaries, searched from end to end."""

    @initialize(limit=st.integers(1, 4), remember=st.integers(1, 5))
    def begin(self, limit: int, remember: int) -> None:
        self.jobs: Jobs[int, str] = Jobs(limit, remember)
        self.limit, self.remember = limit, remember
        self.now_s = 0.0
        self.number = 0
        self.open_: dict[int, tuple[str, float]] = {}  # key -> job, opened
        self.alarms: dict[int, float] = {}  # key -> a deadline that has not been named
        self.closed: dict[int, float] = {}

    def close_in_model(self, key: int) -> str:
        job, opened_s = self.open_.pop(key)
        self.alarms.pop(key, None)
        self.closed[key] = opened_s
        while len(self.closed) > self.remember:
            del self.closed[next(iter(self.closed))]
        return job

    @rule(key=KEYS, wait_s=STEPS)
    def open_one(self, key: int, wait_s: float) -> None:
        if key in self.open_ or key in self.closed:
            return  # no caller opens what it knows
        self.number += 1
        job = f"job {self.number}"
        evicted = self.jobs.open(key, job, self.now_s, self.now_s + wait_s)
        self.open_[key] = (job, self.now_s)
        self.alarms[key] = self.now_s + wait_s
        expected = None
        if len(self.open_) > self.limit:
            oldest = next(iter(self.open_))
            expected = (oldest, self.close_in_model(oldest))
        assert evicted == expected

    @rule(key=KEYS, wait_s=STEPS)
    def reschedule(self, key: int, wait_s: float) -> None:
        if key in self.open_:
            self.jobs.reschedule(key, self.now_s + wait_s)
            self.alarms[key] = self.now_s + wait_s

    @rule(key=KEYS)
    def close(self, key: int) -> None:
        if key in self.open_:
            assert self.jobs.close(key) == self.close_in_model(key)
        else:
            with pytest.raises(KeyError):
                self.jobs.close(key)

    @rule(step_s=STEPS)
    def advance_time(self, step_s: float) -> None:
        self.now_s += step_s
        due = self.jobs.due(self.now_s)
        expected = {key: at_s for key, at_s in self.alarms.items() if at_s <= self.now_s}
        assert sorted(due) == sorted(expected)
        assert [expected[key] for key in due] == sorted(expected[key] for key in due)
        for key in due:
            del self.alarms[key]

    @precondition(lambda self: hasattr(self, "jobs"))
    @invariant()
    def check_agreement(self) -> None:
        assert len(self.jobs) == len(self.open_) <= self.limit
        assert self.jobs.items() == [(key, job) for key, (job, _) in self.open_.items()]
        for key in range(13):
            job, opened_s = self.open_.get(key, (None, self.closed.get(key)))
            assert self.jobs.get(key) == job
            assert self.jobs.opened_s(key) == opened_s
            assert self.jobs.is_closed(key) == (key in self.closed)

    @rule()
    def look_ahead(self) -> None:
        """No invariant: looking tidies up, which may hide what others would see."""
        assert self.jobs.next_due_s() == min(self.alarms.values(), default=None)


TestJobsAgainstNaive = JobsAgainstNaive.TestCase
TestJobsAgainstNaive.settings = settings(max_examples=60, stateful_step_count=30)


def test_the_oldest_gives_way_and_is_known_as_closed() -> None:
    jobs: Jobs[str, int] = Jobs(limit=2)
    assert jobs.open("a", 1, 0.0, 9.0) is None
    assert jobs.open("b", 2, 0.0, 1.0) is None
    assert jobs.open("c", 3, 0.5, 9.0) == ("a", 1)
    assert jobs.is_closed("a")
    assert jobs.opened_s("a") == 0.0
    assert jobs.get("a") is None


def test_each_deadline_is_named_once() -> None:
    jobs: Jobs[str, int] = Jobs()
    jobs.open("a", 1, 0.0, 1.0)
    jobs.reschedule("a", 1.0)
    jobs.reschedule("a", 1.0)
    assert jobs.due(0.999) == []
    assert jobs.due(1.0) == ["a"]
    assert jobs.due(2.0) == []
    assert jobs.next_due_s() is None
    assert jobs.get("a") == 1  # the caller ends it
    jobs.reschedule("a", 3.0)
    assert jobs.due(3.0) == ["a"]


def test_a_deadline_that_was_moved_does_not_come_twice() -> None:
    jobs: Jobs[str, int] = Jobs()
    jobs.open("a", 1, 0.0, 1.0)
    jobs.reschedule("a", 5.0)
    jobs.reschedule("a", 3.0)
    assert jobs.due(2.0) == []
    assert jobs.due(3.0) == ["a"]
    assert jobs.due(10.0) == []


def test_many_reschedules_and_closed_jobs_take_no_lasting_room() -> None:
    jobs: Jobs[int, int] = Jobs(limit=8, remember=16)
    for n in range(5_000):
        jobs.open(n, n, n * 0.01, n * 0.01 + 1.0)
        jobs.reschedule(n, n * 0.01 + 2.0)
        jobs.due(n * 0.01)
    assert len(jobs) == 8
    assert len(jobs._closed) == 16
    assert len(jobs._opened_s) == 8
    assert len(jobs._alarm) <= 8
    assert len(jobs._heap) <= 2 * 2.0 / 0.01 + 2  # what lies within the deadlines
