"""A task for workers: enough, too late, lost; presence; assignments; messages of any peer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddnn.core.plan import MAX_PIECES
from ddnn.machines import placement, workers
from ddnn.machines.collect import Complete, Expired
from ddnn.machines.gather import LIMIT, Gather
from ddnn.machines.membership import PROBE_S
from ddnn.machines.placement import LOAD_S, REPEAT_S, SETTLE_S
from ddnn.machines.worker import WorkerNode
from ddnn.protocol.machine import (
    Connected,
    Disconnected,
    Load,
    Loaded,
    Now,
    Publish,
    Received,
    Tick,
)
from ddnn.protocol.messages import Assignment, Result, Status, Task, Tensor, WorkerOffer
from ddnn.protocol.topics import Kind, Topic
from tests.plan_builders import make_plan

PLAN = "cd34ef56"
TIMEOUT_S = 0.1
X = np.zeros(4, np.float32)


class Group:
    """A gatherer of n pieces of which any k are enough, piece i with worker w<i>."""

    def __init__(self, n: int = 4, k: int = 3, *, planned=None, online: bool = True, **options):
        self.planned = planned or {f"w{i}": (i,) for i in range(n)}
        self.k = k
        self.asked = 0
        options = {"timeout_s": TIMEOUT_S, **options}
        self.plan = make_plan(self.planned, plan_id=PLAN)
        self.machine = Gather("home", self.plan, self._enough, **options)
        self.now_s = 0.0
        self.outcomes: list[Any] = []
        self.assigned: list[dict[str, list[int]]] = []
        self.event(Connected())
        if online:
            for name, pieces in self.planned.items():
                self.status(name)
                self.offer(name, *pieces)
            self.wait(SETTLE_S)

    def _enough(self, pieces) -> bool:
        self.asked += 1
        return len(pieces) >= self.k

    @property
    def now(self) -> Now:
        return Now(self.now_s, 1_700_000_000 + self.now_s)

    def event(self, event):
        effects, outcomes = self.machine.handle(event, self.now)
        for effect in effects:
            assert isinstance(effect, Publish)
            assert isinstance(effect.message, Assignment)
            assert effect.topic == Topic("home", Kind.ASSIGN, "edge")
            self.assigned.append(dict(effect.message.plans[PLAN]))
        self.outcomes += outcomes
        return outcomes

    def wait(self, for_s: float) -> None:
        """Until then, with every tick at its time."""
        until_s = self.now_s + for_s
        for _ in range(1000):
            due_s = self.machine.deadline_s()
            if due_s is None or due_s > until_s:
                break
            self.now_s = max(self.now_s, due_s)
            self.event(Tick())
        else:
            raise AssertionError("the machine ticks without end")
        self.now_s = until_s

    def status(self, node, state="online", session=1):
        status = Status("worker", session, state)
        return self.event(Received(Topic("home", Kind.STATUS, node), status))

    def offer(self, node, *holds, plan=PLAN):
        return self.event(
            Received(Topic("home", Kind.OFFER, node), WorkerOffer({plan: list(holds)}))
        )

    def scatter(self, **options) -> int:
        job, effects, outcomes = self.machine.scatter({"x": X}, self.now, **options)
        self.outcomes += outcomes
        assert [effect.topic for effect in effects] == [Topic("home", Kind.TASK, "edge")]
        assert effects[0].message == Task(1, PLAN, job, {"x": Tensor.of(X)})
        return job

    def done(self, job, piece, node=None, z=None, plan=PLAN):
        z = np.full(2, piece, np.float32) if z is None else z
        node = f"w{piece}" if node is None else node
        return self.event(
            Received(
                Topic("home", Kind.RESULT, node), Result(1, plan, job, piece, {"z": Tensor.of(z)})
            )
        )

    def answer_all(self, job, *but):
        for name, pieces in self.planned.items():
            for piece in pieces if name not in but else ():
                self.done(job, piece, name)

    def state(self, node) -> str:
        return self.machine.pool.states()[node].state


def kinds(outcomes):
    """Complete: enough; Ended: after there were enough; Failed: never enough."""
    names = {True: "Ended", False: "Failed"}
    return [
        "Enough" if isinstance(outcome, Complete) else names[outcome.completed]
        for outcome in outcomes
    ]


def failed(outcomes):
    """The numbers of the tasks that failed; there is no other outcome."""
    assert set(kinds(outcomes)) <= {"Failed"}
    return [outcome.key for outcome in outcomes]


# --------------------------------------------------------------------------- enough


def test_the_first_pieces_that_are_enough_are_taken() -> None:
    group = Group()
    job = group.scatter()
    assert group.done(job, 3) == group.done(job, 0) == []
    group.now_s += 0.01
    (enough,) = group.done(job, 2)
    assert isinstance(enough, Complete)
    assert sorted(enough.parts) == [0, 2, 3]
    assert enough.senders == {0: "w0", 2: "w2", 3: "w3"}
    assert [enough.parts[n]["z"][0] for n in (0, 2, 3)] == [0, 2, 3]
    assert enough.missing == ("w1",)
    assert enough.after_s == pytest.approx(0.01)
    (ended,) = group.done(job, 1)
    assert isinstance(ended, Expired)
    assert sorted(ended.parts) == [0, 1, 2, 3]
    assert len(enough.parts) == 3  # what was handed over stays as it was
    assert group.machine.deadline_s() is None


def test_who_does_not_come_ends_with_the_time_out() -> None:
    group = Group()
    job = group.scatter()
    group.answer_all(job, "w1")
    assert kinds(group.outcomes) == ["Enough"]
    group.wait(TIMEOUT_S)
    assert kinds(group.outcomes) == ["Enough", "Ended"]
    assert group.machine.pool.states()["w1"].missed == 1


def test_too_few_fail_with_the_time_out_and_not_before() -> None:
    group = Group()
    job = group.scatter()
    group.done(job, 0)
    group.done(job, 1)
    group.wait(TIMEOUT_S - 1e-6)
    assert group.outcomes == []
    group.wait(2e-6)
    assert failed(group.outcomes) == [job]


def test_a_worker_with_several_pieces_has_answered_with_the_last() -> None:
    group = Group(planned={"w0": (0, 1), "w1": (2, 3)}, k=2)
    job = group.scatter()
    group.done(job, 2, "w1")
    group.done(job, 0, "w0")
    assert group.outcomes[0].missing == ("w0", "w1")
    group.done(job, 3, "w1")
    assert kinds(group.outcomes) == ["Enough"]
    group.done(job, 1, "w0")
    assert kinds(group.outcomes) == ["Enough", "Ended"]


def test_quorum_is_asked_no_more_than_once_per_answer_until_enough() -> None:
    group = Group(100, 90)
    group.machine.possible  # noqa: B018
    group.asked = 0
    job = group.scatter()
    group.answer_all(job)
    assert kinds(group.outcomes) == ["Enough", "Ended"]
    assert group.asked <= 90


@pytest.mark.parametrize("sent_s", [0.0, 0.3, 1.1, 12345.678, 1e6 + 1 / 3])
@pytest.mark.parametrize("threshold_s", [0.03, 0.1, 7.0])
def test_the_straggler_threshold(sent_s, threshold_s) -> None:
    """All are waited for, until then; whatever the clock's digits are."""
    group = Group(threshold_s=threshold_s)
    group.now_s += sent_s
    job = group.scatter()
    group.answer_all(job, "w1")
    assert group.outcomes == []
    group.wait(min(threshold_s, TIMEOUT_S))
    assert kinds(group.outcomes)[0] == "Enough"
    job = group.scatter()
    del group.outcomes[:]
    group.answer_all(job)  # all are there: no need to wait
    assert kinds(group.outcomes)[:2] == ["Enough", "Ended"]


def test_after_the_threshold_any_enough_will_do() -> None:
    group = Group(threshold_s=0.03)
    job = group.scatter()
    group.done(job, 0)
    group.done(job, 1)
    group.wait(0.05)
    assert group.outcomes == []
    assert kinds(group.done(job, 2)) == ["Enough"]


def test_too_many_tasks_end_the_oldest() -> None:
    group = Group()
    jobs = [group.scatter() for _ in range(LIMIT + 5)]
    assert failed(group.outcomes) == jobs[:5]
    assert len(set(jobs)) == len(jobs)


def test_numbers_go_on_after_a_restart() -> None:
    first = Group()
    jobs = [first.scatter() for _ in range(3)]
    second = Group()
    second.now_s = first.now_s + 1.0
    assert second.scatter() > max(jobs)


# ------------------------------------------------------------------ late, twice, wrong


def test_late_and_repeated_answers_are_counted_and_dropped() -> None:
    group = Group()
    job = group.scatter()
    group.done(job, 0)
    group.done(job, 0, z=np.full(2, 9, np.float32))
    group.answer_all(job)
    assert group.outcomes[0].parts[0]["z"][0] == 0  # the first counts
    seen = len(group.outcomes)
    group.done(job, 1)
    group.done(job + 1000, 1)
    assert len(group.outcomes) == seen
    assert group.machine.counts == {"results_late": 4}


@pytest.mark.parametrize(
    "wrong",
    [
        {"piece": 1},
        {"piece": 1000},
        {"plan": "00000000"},
        {"z": np.zeros(3, np.float32)},
        {"z": np.zeros((1, 2), np.float32)},
        {"z": np.zeros(2, np.float16)},
        {"z": np.zeros(2, np.uint8)},
        {"z": np.array([0, np.nan], np.float32)},
        {"z": np.array([np.inf, 0], np.float32)},
        {"node": "stranger"},
        {"node": "w1"},
    ],
    ids=str,
)
def test_answers_that_do_not_fit_are_refused(wrong) -> None:
    group = Group()
    job = group.scatter()
    given = {"node": "w0", "piece": 0, **wrong}
    assert group.done(job, **given) == []
    assert group.machine.counts == {"results_refused": 1}
    group.answer_all(job, "w0")
    assert list(group.outcomes[0].parts) == [1, 2, 3]


def test_bits_are_no_answer() -> None:
    group = Group()
    job = group.scatter()
    tensor = Tensor.of(np.ones(2, np.float32), bits=True)
    assert not group.event(
        Received(Topic("home", Kind.RESULT, "w0"), Result(1, PLAN, job, 0, {"z": tensor}))
    )
    assert group.machine.counts == {"results_refused": 1}


# -------------------------------------------------------------------------- presence


def test_nobody_is_there_at_first() -> None:
    group = Group(online=False)
    assert group.machine.pool.live_pieces == frozenset()
    assert not group.machine.possible
    assert {state.state for state in group.machine.pool.states().values()} == {"lost"}


@pytest.mark.parametrize("order", ["status first", "lend first"])
def test_presence_and_lending_come_in_any_order(order) -> None:
    group = Group(online=False)
    for piece in range(4):
        if order == "status first":
            group.status(f"w{piece}")
            assert group.machine.pool.live_pieces == frozenset(range(piece))
            group.offer(f"w{piece}", piece)
        else:
            group.offer(f"w{piece}", piece)
            assert group.machine.pool.live_pieces == frozenset(range(piece))
            group.status(f"w{piece}")
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert group.machine.possible


def test_who_holds_nothing_is_not_counted_on() -> None:
    group = Group(online=False)
    group.status("w0")
    group.offer("w0")
    assert group.state("w0") == "loading"
    group.offer("w0", 3)  # what is another's
    assert group.machine.pool.live_pieces == frozenset()
    group.offer("w0", 0, 3)
    assert group.machine.pool.live_pieces == {0}
    assert group.state("w0") == "live"
    group.offer("w0", 0, plan="00000000")
    assert group.machine.pool.live_pieces == frozenset()
    assert group.machine.counts == {"wrong_plan": 1}


@pytest.mark.parametrize("what", ["lost", "stopped", "unloads"])
def test_tasks_do_not_wait_for_who_is_gone(what) -> None:
    group = Group()
    job = group.scatter()
    group.done(job, 0)
    group.done(job, 1)

    def go(node):
        return group.offer(node) if what == "unloads" else group.status(node, what)

    assert go("w3") == []  # w2 may still come
    assert failed(go("w2")) == [job]
    assert group.machine.deadline_s() <= group.now_s + SETTLE_S


def test_a_task_fails_as_soon_as_those_who_are_left_cannot_be_enough() -> None:
    group = Group(5, 4)
    job = group.scatter()
    group.done(job, 0)
    assert group.status("w1", "lost") == []
    assert failed(group.status("w2", "lost")) == [job]  # w3 and w4 make three


def test_when_enough_are_there_the_rest_is_not_waited_for_longer_than_it_lives() -> None:
    group = Group()
    job = group.scatter()
    group.answer_all(job, "w1")
    assert kinds(group.status("w1", "lost")) == ["Ended"]


def test_a_threshold_ends_when_the_last_that_is_waited_for_is_gone() -> None:
    group = Group(threshold_s=0.05)
    job = group.scatter()
    group.answer_all(job, "w1")
    assert kinds(group.status("w1", "lost")) == ["Enough", "Ended"]


def test_without_a_broker_nothing_is_waited_for() -> None:
    group = Group()
    job = group.scatter()
    assert failed(group.event(Disconnected())) == [job]
    assert not group.machine.possible


def test_an_old_connections_will_takes_nobody_away() -> None:
    group = Group()
    group.status("w0", "online", session=2)
    group.status("w0", "lost", session=1)
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}


@pytest.mark.parametrize("fresh", [True, False], ids=["edge starts", "edge reconnects"])
def test_a_false_will_that_was_kept_is_corrected_by_the_next_birth(fresh) -> None:
    group = Group(online=not fresh)
    if not fresh:
        group.event(Disconnected())
        group.event(Connected())
    group.offer("w0", 0)
    group.status("w0", "lost", session=7)  # retained; of a connection that w0 had before
    assert group.machine.pool.live_pieces == frozenset()
    group.status("w0", "online", session=1)
    assert group.machine.pool.live_pieces == {0}


def test_an_answer_of_a_dead_worker_counts_and_brings_it_not_back() -> None:
    group = Group()
    job = group.scatter()
    group.done(job, 0)
    group.status("w1", "lost")
    group.done(job, 1)  # it was under way
    assert kinds(group.done(job, 2)) == ["Enough"]
    assert group.state("w1") == "lost"


def test_who_misses_two_tasks_is_not_waited_for_until_it_answers_in_time() -> None:
    group = Group()
    for _ in range(2):
        assert group.machine.pool.live_pieces == {0, 1, 2, 3}
        group.answer_all(group.scatter(), "w1")
        group.wait(TIMEOUT_S)
    assert group.machine.pool.live_pieces == {0, 2, 3}
    assert group.state("w1") == "stalled"
    job = group.scatter()
    group.answer_all(job, "w1")
    assert kinds(group.outcomes[-2:]) == ["Enough", "Ended"]  # at once
    group.now_s += TIMEOUT_S / 2
    group.done(job, 1)
    assert group.state("w1") == "live"


def test_an_answer_that_is_too_late_is_no_reason_to_wait_again() -> None:
    group = Group()
    for _ in range(2):
        job = group.scatter()
        group.answer_all(job, "w1")
        group.wait(TIMEOUT_S)
    group.now_s += 0.01
    group.done(job, 1)
    assert group.state("w1") == "stalled"


def test_all_stalled_are_asked_now_and_then() -> None:
    group = Group()
    for _ in range(2):
        group.scatter()
        group.wait(TIMEOUT_S)
    assert not group.machine.possible
    assert not group.machine.probe_due(group.now)
    group.wait(PROBE_S)
    assert group.machine.probe_due(group.now)
    assert not group.machine.probe_due(group.now)  # once a second
    del group.outcomes[:]
    job = group.scatter(probe=True)
    for piece in range(3):
        group.done(job, piece)
    assert group.outcomes == []  # a probe comes to nothing
    assert group.machine.pool.live_pieces == {0, 1, 2}
    assert group.machine.possible
    group.wait(TIMEOUT_S)
    assert group.outcomes == []


# ----------------------------------------------------------------------- assignments


def test_the_plan_is_told_once_and_covers_also_those_who_are_away() -> None:
    """A worker that starts finds its pieces at the broker; an edge that starts takes no piece
    away from anybody."""
    group = Group(online=False)
    group.wait(1.0)
    assert group.assigned == [{f"w{i}": [i] for i in range(4)}]
    for name in group.planned:
        group.status(name)
        group.offer(name)
    group.status("w2", "lost")
    group.wait(1.0)
    assert len(group.assigned) == 1


def test_after_a_reconnection_it_is_told_again() -> None:
    group = Group()
    group.event(Disconnected())
    group.wait(1.0)
    assert len(group.assigned) == 1
    group.event(Connected())
    group.wait(1.0)
    assert len(group.assigned) == 2


def test_a_spare_stands_in_until_the_planned_one_is_at_work_again() -> None:
    group = Group()
    group.status("x")
    group.offer("x")
    group.wait(SETTLE_S)
    assert len(group.assigned) == 1  # nothing to do for it
    group.status("w2", "lost")
    group.wait(SETTLE_S)
    assert group.assigned[-1]["x"] == [2]
    group.offer("x", 2)
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert not group.machine.pool.states()["x"].planned
    group.status("w2", session=2)
    group.offer("w2")
    group.wait(1.0)
    assert group.assigned[-1]["x"] == [2]  # it has not loaded yet
    group.offer("w2", 2)
    group.wait(SETTLE_S)
    assert "x" not in group.assigned[-1]
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}


def test_a_spare_stands_in_for_one_that_stalls_and_both_may_answer() -> None:
    group = Group()
    group.status("x")
    group.offer("x")
    for _ in range(2):
        group.answer_all(group.scatter(), "w1")
        group.wait(TIMEOUT_S)
    group.wait(SETTLE_S)
    assert group.assigned[-1] == {**{f"w{i}": [i] for i in range(4)}, "x": [1]}
    group.offer("x", 1)
    job = group.scatter()
    group.done(job, 1, "x")
    group.done(job, 1, "w1")
    assert group.machine.counts == {"results_late": 1}
    group.answer_all(job, "w1")
    assert group.outcomes[-1].senders[1] == "x"
    group.wait(SETTLE_S)
    assert "x" not in group.assigned[-1]  # w1 is trusted again


def test_answers_of_who_was_relieved_meanwhile_count() -> None:
    group = Group(timeout_s=1.0)
    group.status("w2", "lost")
    group.status("x")
    group.offer("x")
    group.wait(SETTLE_S)
    group.offer("x", 2)
    job = group.scatter()
    group.status("w2", session=2)
    group.offer("w2", 2)
    group.wait(SETTLE_S)
    assert "x" not in group.assigned[-1]
    group.done(job, 2, "x")
    group.done(job, 0)
    assert kinds(group.done(job, 1)) == ["Enough"]
    assert group.machine.counts == {}


def test_changes_come_in_swarms_and_are_told_together() -> None:
    group = Group()
    for i in range(4):
        group.status(f"x{i}")
        group.offer(f"x{i}")
        group.status(f"w{i}", "lost")
    group.wait(SETTLE_S)
    assert len(group.assigned) == 2
    assert [group.assigned[-1][f"x{i}"] for i in range(4)] == [[i] for i in range(4)]


def test_a_stalled_spare_gives_way_to_another() -> None:
    group = Group()
    for name in ("x", "y"):
        group.status(name)
        group.offer(name)
    group.status("w0", "lost")
    group.wait(SETTLE_S)
    assert "y" not in group.assigned[-1]
    group.offer("x", 0)
    for _ in range(2):
        group.answer_all(group.scatter(), "w0")
        group.wait(TIMEOUT_S)
    group.wait(SETTLE_S)
    assert group.assigned[-1]["y"] == [0]
    assert "x" not in group.assigned[-1]


def spares(*names: str, **options: Any) -> Group:
    """A group whose w0 is lost, and these spares."""
    group = Group(**options)
    for name in names:
        group.status(name)
        group.offer(name)
    group.status("w0", "lost")
    group.wait(SETTLE_S)
    return group


def test_a_spare_that_does_not_load_gives_way_without_any_traffic() -> None:
    group = spares("x", "y")
    group.wait(LOAD_S - SETTLE_S)
    assert group.assigned[-1].get("x") == [0]
    group.wait(SETTLE_S)
    assert group.assigned[-1].get("y") == [0]
    assert "x" not in group.assigned[-1]
    group.offer("y", 0)
    group.wait(60.0)
    assert group.assigned[-1].get("y") == [0]
    assert group.machine.deadline_s() is None
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}


def test_a_spare_that_did_not_load_is_behind_whoever_comes() -> None:
    group = spares("x")
    group.wait(2 * LOAD_S)
    assert group.assigned[-1].get("x") == [0]  # there is nobody else
    group.status("y")
    group.offer("y")
    group.wait(SETTLE_S)
    assert group.assigned[-1].get("y") == [0]
    assert "x" not in group.assigned[-1]


@pytest.mark.parametrize("how", ["loads", "starts again"])
def test_a_spare_is_trusted_again(how) -> None:
    group = spares("x")
    group.wait(2 * LOAD_S)
    if how == "loads":
        group.offer("x", 0)
    else:
        group.status("x", session=2)
    group.wait(SETTLE_S)
    group.status("a")
    group.offer("a")
    group.wait(SETTLE_S)
    assert group.assigned[-1].get("x") == [0]
    assert "a" not in group.assigned[-1]


def test_spares_that_are_slow_to_load_have_their_turn_again_and_longer() -> None:
    group = spares("x", "y", "z")
    turns: list[tuple[str, float]] = []
    for _ in range(100):
        (turn,) = group.assigned[-1].keys() - group.planned.keys()
        if not turns or turns[-1][0] != turn:
            turns.append((turn, group.now_s))
        group.wait(LOAD_S / 5)
    assert [turn for turn, _ in turns[:7]] == ["x", "y", "z", "x", "y", "z", "x"]
    assert turns[3][1] - turns[0][1] == pytest.approx(3 * LOAD_S, abs=LOAD_S)
    assert turns[6][1] - turns[3][1] == pytest.approx(6 * LOAD_S, abs=LOAD_S)
    first = len(group.assigned)
    group.wait(3600.0)  # and they are told now and then, not ever faster
    assert len(group.assigned) - first <= 3600 / REPEAT_S * 1.1


# ---------------------------------------------------------------------- said once more


@pytest.mark.parametrize("holds", [[], [3], [1, 3]], ids=str)
def test_who_holds_other_pieces_is_told_again_until_it_does_not(holds) -> None:
    """The retained assignment was emptied or overwritten."""
    group = Group()
    group.wait(REPEAT_S)
    group.offer("w1", *holds)
    group.wait(SETTLE_S)
    assert len(group.assigned) == 2
    assert group.assigned[0] == group.assigned[1]
    group.wait(3 * REPEAT_S)
    assert len(group.assigned) == 5
    group.offer("w1", 1)
    group.wait(10 * REPEAT_S)
    assert len(group.assigned) == 5
    assert group.machine.deadline_s() is None


@pytest.mark.parametrize("gone", ["lost", "faulty", "without a broker"])
def test_who_cannot_be_helped_is_not_told_again(gone) -> None:
    group = Group()
    group.offer("w1")
    if gone == "lost":
        group.status("w1", "lost")
    elif gone == "faulty":
        group.machine.quarantine({"w1"}, group.now)
    else:
        group.event(Disconnected())
    group.wait(SETTLE_S)
    told = len(group.assigned)
    group.wait(10 * REPEAT_S)
    assert len(group.assigned) == told
    assert group.machine.deadline_s() is None


def test_a_lend_of_another_plan_is_questioned_once() -> None:
    group = Group()
    group.wait(REPEAT_S)
    group.offer("w1", 1, plan="00000000")
    group.wait(SETTLE_S)
    assert len(group.assigned) == 2
    group.wait(10 * REPEAT_S)
    assert len(group.assigned) == 2


class Together:
    """A group whose workers are real machines; messages arrive at once."""

    def __init__(self) -> None:
        self.group = Group(online=False)
        self.workers = {
            name: WorkerNode("home", name, "edge", self.group.plan, None)
            for name in self.group.planned
        }
        self.lends = self.heard = 0
        for name in self.workers:
            self.group.status(name)
            self.give(name, Connected())
        self.settle(SETTLE_S)

    def give(self, name: str, event: Any) -> None:
        effects = self.workers[name].handle(event, self.group.now)
        for effect in effects:
            if isinstance(effect, Publish):
                assert isinstance(effect.message, WorkerOffer)
                self.lends += 1
                self.group.event(Received(effect.topic, effect.message))
        for effect in effects:
            if isinstance(effect, Load):
                self.give(name, Loaded(effect.section, True))

    def assign(self, pieces: dict[str, list[int]]) -> None:
        topic = Topic("home", Kind.ASSIGN, "edge")
        for name in self.workers:
            self.give(name, Received(topic, Assignment({PLAN: pieces})))

    def settle(self, for_s: float) -> None:
        until_s = self.group.now_s + for_s
        while self.group.now_s < until_s:
            self.group.wait(min(SETTLE_S / 4, until_s - self.group.now_s))
            while self.heard < len(self.group.assigned):
                self.heard += 1
                self.assign(self.group.assigned[self.heard - 1])


@pytest.mark.parametrize("what", ["assignment", "lend", "plan"])
def test_workers_and_gatherer_put_a_foreign_message_right_and_are_quiet_then(what) -> None:
    site = Together()
    site.settle(REPEAT_S)
    assert site.group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert len(site.group.assigned) == 1
    lends = site.lends
    if what == "assignment":
        site.assign({"w0": [1], "w1": [0], "w2": [], "w3": [3, 2]})
    elif what == "lend":
        site.group.offer("w1")
    else:
        site.group.offer("w1", plan="00000000")
    assert site.group.machine.pool.live_pieces != {0, 1, 2, 3}
    site.settle(2 * SETTLE_S)
    assert site.group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert [worker.gauges["pieces_held"] for worker in site.workers.values()] == [1] * 4
    site.settle(10 * REPEAT_S)
    assert len(site.group.assigned) == 2
    assert site.lends - lends <= 16
    assert site.group.machine.deadline_s() is None


def test_two_that_contradict_each_other_do_so_slowly() -> None:
    """A second gatherer of the same group is a mistake, but no storm."""
    site = Together()
    for _ in range(100):
        site.assign({"w0": [1], "w1": [0]})
        site.settle(SETTLE_S)
    assert len(site.group.assigned) <= 2 + 100 * SETTLE_S / REPEAT_S


def test_assignments_stay_within_what_a_message_bears(monkeypatch) -> None:
    monkeypatch.setattr(placement, "MAX_PIECES", 5)
    group = Group()
    for i in range(4):
        group.status(f"x{i}")
        group.offer(f"x{i}")
        group.status(f"w{i}", "lost")
    group.wait(SETTLE_S)
    assert len(group.assigned[-1]) == 5


# ------------------------------------------------------------------------ the faulty


def test_a_faulty_worker_is_left_out_until_it_starts_anew() -> None:
    group = Group()
    group.machine.quarantine({"w1"}, group.now)
    group.wait(SETTLE_S)
    assert group.state("w1") == "faulty"
    assert "w1" not in group.assigned[-1]
    job = group.scatter()
    assert group.done(job, 1) == []
    assert group.machine.counts == {"workers_faulty": 1, "results_refused": 1}
    group.machine.quarantine({"w1", "nobody"}, group.now)
    assert group.machine.counts["workers_faulty"] == 1
    group.status("w1", session=1)  # said once more, by the same
    assert group.state("w1") == "faulty"
    group.status("w1", session=2)
    group.wait(SETTLE_S)
    assert group.assigned[-1]["w1"] == [1]
    assert group.state("w1") == "live"


def test_what_a_faulty_worker_gave_to_open_tasks_is_thrown_away_at_once() -> None:
    group = Group()
    job = group.scatter()
    group.done(job, 1)
    group.done(job, 2)
    group.status("w3", "lost")
    group.machine.quarantine({"w1"}, group.now)
    assert group.machine.deadline_s() <= group.now_s
    group.event(Tick())
    assert failed(group.outcomes) == [job]


def test_only_who_gave_the_answer_is_blamed() -> None:
    """Not the planned worker that a spare stands in for."""
    group = Group()
    group.status("w2", "lost")
    group.status("x")
    group.offer("x")
    group.wait(SETTLE_S)
    group.offer("x", 2)
    job = group.scatter()
    group.done(job, 2, "x")
    group.answer_all(job, "w2")
    ended = group.outcomes[-1]
    group.machine.quarantine({ended.senders[2]}, group.now)
    assert group.state("x") == "faulty"
    group.status("w2")
    group.offer("w2", 2)
    assert group.state("w2") == "live"


# ------------------------------------------------------------------------ the bounds


def size(machine: Gather) -> int:
    pool, jobs = machine.pool, machine._collector._jobs
    books = vars(machine), vars(pool), vars(pool._membership), vars(jobs)
    return sum(len(v) for book in books for v in book.values() if hasattr(v, "__len__"))


def test_a_flood_of_strangers_takes_no_room_and_keeps_nobody_out() -> None:
    group = Group(online=False)
    for n in range(3 * workers.MAX_NODES):
        group.status(f"a{n}", "lost", session=n)
        group.status(f"b{n}", "online", session=n)
        group.offer(f"b{n}")
        group.offer(f"c{n}", plan="00000000")
        group.done(n, 0, f"d{n}")
    assert len(group.machine.pool._sessions) <= workers.MAX_NODES
    assert len(group.machine.pool._membership._members) <= workers.MAX_NODES
    assert len(group.machine.pool.workers) <= workers.MAX_WORKERS
    for name, pieces in group.planned.items():
        group.status(name)
        group.offer(name, *pieces)
    assert group.machine.pool.live_pieces == {0, 1, 2, 3}
    assert len(group.machine.pool.states()) <= MAX_PIECES


@pytest.mark.parametrize("state", ["online", "lost"])
def test_a_flood_of_lenders_keeps_no_spare_out(state) -> None:
    group = spares("x")
    group.offer("x", 0)
    group.done(group.scatter(), 0, "x")
    group.status("w0", session=2)
    group.status("y")
    group.offer("y")
    group.wait(SETTLE_S)
    group.offer("x")  # it has answered, and is not needed for now
    group.status("x", "stopped")
    group.status("w1", "lost")
    group.wait(SETTLE_S)
    assert group.assigned[-1].get("y") == [1]  # it has not answered yet
    group.status("x")
    group.status("idle")
    group.offer("idle")
    for n in range(2 * workers.MAX_WORKERS):
        group.status(f"b{n}", "online")
        group.status(f"b{n}", state)
        group.offer(f"b{n}")
    assert {*group.planned, "x", "y"} <= group.machine.pool.workers.keys()
    assert ("idle" in group.machine.pool.workers) == (state == "lost")  # who is away goes first
    assert len(group.machine.pool.workers) == workers.MAX_WORKERS
    group.status("spare")
    group.offer("spare")
    assert "spare" in group.machine.pool.workers
    assert len(group.machine.pool.workers) == workers.MAX_WORKERS
    group.offer("b0")  # one more of them
    assert {"spare", "x", "y"} <= group.machine.pool.workers.keys()


def test_a_day_of_tasks_takes_no_room() -> None:
    group = Group()

    def some(tasks: int) -> int:
        for n in range(tasks):
            job = group.scatter()
            group.answer_all(job, f"w{n % 2}")
            group.now_s += TIMEOUT_S
            group.event(Tick())
            group.done(job, n % 2)
        del group.outcomes[:]
        return size(group.machine)

    assert some(9000) == some(1000)  # closed jobs are remembered, so many and no more


def test_work_per_answer_does_not_grow_with_the_group() -> None:
    """A thousand answers to a task: counted in set elements looked at, not in seconds."""

    class Watched(dict):
        walks = 0

        def items(self):
            Watched.walks += 1
            return super().items()

    group = Group(1000, 990)
    group.machine.pool.workers = Watched(group.machine.pool.workers)
    job = group.scatter()
    group.answer_all(job)
    assert kinds(group.outcomes) == ["Enough", "Ended"]
    assert Watched.walks == 0
