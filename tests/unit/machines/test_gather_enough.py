"""A task completes when its results are enough, and fails at its timeout without them."""

from __future__ import annotations

import pytest

from ddnn.machines.collect import Complete, Expired
from ddnn.machines.gather import LIMIT
from tests.unit.machines.gather_group import TIMEOUT_S, Group, list_failed, name_outcomes


def test_the_first_pieces_that_are_enough_are_taken() -> None:
    group = Group()
    job = group.scatter()
    assert group.report(job, 3) == group.report(job, 0) == []
    group.now_s += 0.01
    (enough,) = group.report(job, 2)
    assert isinstance(enough, Complete)
    assert sorted(enough.parts) == [0, 2, 3]
    assert enough.senders == {0: "w0", 2: "w2", 3: "w3"}
    assert [enough.parts[n]["z"][0] for n in (0, 2, 3)] == [0, 2, 3]
    assert enough.missing == ("w1",)
    assert enough.after_s == pytest.approx(0.01)
    (ended,) = group.report(job, 1)
    assert isinstance(ended, Expired)
    assert sorted(ended.parts) == [0, 1, 2, 3]
    assert len(enough.parts) == 3  # what was handed over stays as it was
    assert group.machine.deadline_s() is None


def test_a_task_that_lacks_a_result_ends_at_its_timeout() -> None:
    group = Group()
    job = group.scatter()
    group.report_all(job, "w1")
    assert name_outcomes(group.outcomes) == ["Enough"]
    group.wait(TIMEOUT_S)
    assert name_outcomes(group.outcomes) == ["Enough", "Ended"]
    assert group.machine.pool.states()["w1"].missed == 1


def test_a_task_with_too_few_results_fails_at_its_timeout_and_not_before() -> None:
    group = Group()
    job = group.scatter()
    group.report(job, 0)
    group.report(job, 1)
    group.wait(TIMEOUT_S - 1e-6)
    assert group.outcomes == []
    group.wait(2e-6)
    assert list_failed(group.outcomes) == [job]


def test_a_worker_with_several_pieces_has_answered_with_the_last() -> None:
    group = Group(planned={"w0": (0, 1), "w1": (2, 3)}, k=2)
    job = group.scatter()
    group.report(job, 2, "w1")
    group.report(job, 0, "w0")
    assert group.outcomes[0].missing == ("w0", "w1")
    group.report(job, 3, "w1")
    assert name_outcomes(group.outcomes) == ["Enough"]
    group.report(job, 1, "w0")
    assert name_outcomes(group.outcomes) == ["Enough", "Ended"]


def test_quorum_is_asked_no_more_than_once_per_answer_until_enough() -> None:
    group = Group(100, 90)
    group.machine.quorum.is_possible()
    group.asked = 0
    job = group.scatter()
    group.report_all(job)
    assert name_outcomes(group.outcomes) == ["Enough", "Ended"]
    assert group.asked <= 90


@pytest.mark.parametrize("sent_s", [0.0, 0.3, 1.1, 12345.678, 1e6 + 1 / 3])
@pytest.mark.parametrize("threshold_s", [0.03, 0.1, 7.0])
def test_the_straggler_threshold(sent_s, threshold_s) -> None:
    """All are waited for, until then; whatever the clock's digits are."""
    group = Group(threshold_s=threshold_s)
    group.now_s += sent_s
    job = group.scatter()
    group.report_all(job, "w1")
    assert group.outcomes == []
    group.wait(min(threshold_s, TIMEOUT_S))
    assert name_outcomes(group.outcomes)[0] == "Enough"
    job = group.scatter()
    del group.outcomes[:]
    group.report_all(job)  # all are there: no need to wait
    assert name_outcomes(group.outcomes)[:2] == ["Enough", "Ended"]


def test_after_the_threshold_the_first_results_that_are_enough_are_taken() -> None:
    group = Group(threshold_s=0.03)
    job = group.scatter()
    group.report(job, 0)
    group.report(job, 1)
    group.wait(0.05)
    assert group.outcomes == []
    assert name_outcomes(group.report(job, 2)) == ["Enough"]


def test_too_many_tasks_end_the_oldest() -> None:
    group = Group()
    jobs = [group.scatter() for _ in range(LIMIT + 5)]
    assert list_failed(group.outcomes) == jobs[:5]
    assert len(set(jobs)) == len(jobs)


def test_task_numbers_increase_across_a_restart() -> None:
    first = Group()
    jobs = [first.scatter() for _ in range(3)]
    second = Group()
    second.now_s = first.now_s + 1.0
    assert second.scatter() > max(jobs)
