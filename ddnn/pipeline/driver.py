"""Drives a training: arranges the nodes in terms, watches them, and arranges them again.

The states and what moves a training between them are in `ddnn.pipeline.driver_states`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ddnn.pipeline.arranger import Arranger
from ddnn.pipeline.collector import Collector, SaveJob
from ddnn.pipeline.driver_states import Signal, State
from ddnn.pipeline.member import Member
from ddnn.pipeline.planner import Arrangement, find_better
from ddnn.pipeline.question import Question
from ddnn.pipeline.roster import Roster
from ddnn.pipeline.runner import StageRunner
from ddnn.pipeline.settings import Settings
from ddnn.pipeline.stage import LayerProfile
from ddnn.protocol.machine import Call, Effect, Now, Received, Returned, find_earliest
from ddnn.protocol.messages import Status
from ddnn.protocol.topics import Kind, Topic
from ddnn.protocol.train_messages import (
    TrainOffer,
    TrainReply,
    TrainReport,
)


class ProfileJob(NamedTuple):
    """The token of the Call that measures the layers."""

    run: str


class Driver(Arranger):
    """The decisions of the central node: when to begin, whom to wait for, when to rearrange."""

    def __init__(
        self,
        site: str,
        run: str,
        member: Member,
        roster: Roster,
        collector: Collector,
        settings: Settings,
        profile: Callable[[], list[LayerProfile]],
        term: int = 0,
    ) -> None:
        """profile: measures the layers on this node; runs in the thread for slow work."""
        super().__init__(site, run, member, roster, collector, settings, term)
        self._profile = profile
        self._check_at: int | None = None  # batches at which the layout is compared with the best
        self._changes = 0  # of the layout, because another one is better
        self._drain_to = 0
        self._usable: tuple[list[str], list[str]] = ([], [])  # all nodes; those that want to stay
        self._parts, self._moved_s = 0, 0.0  # parts that were fetched, and when the last one came

    def deadline_s(self) -> float | None:
        times = [self._due_s]
        if self._question is not None:
            times.append(self._question.next_s)
        if self.state in (State.RUNNING, State.DRAINING) and self.arrangement is not None:
            times.append(self._find_overdue_s(self.arrangement))
        return find_earliest(times)

    def _find_overdue_s(self, arrangement: Arrangement) -> float:
        """When the next batch is overdue, or after the last one the next part of a copy."""
        if self._has_all_batches:
            return self._moved_s + self.settings.hold_s + self.member.exchange.fetcher.part_s
        return self.progress.due_s(len(arrangement.nodes))

    @property
    def _has_all_batches(self) -> bool:
        return self.runner is not None and self.runner.backwards >= self.settings.batches

    # -------------------------------------------------------------------- events

    def handle(self, event: object, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        match event:
            case Received(Topic(_, Kind.TRAIN_OFFER, name), TrainOffer() as offer):
                effects = self._take_offer(name, offer, now)
                if self.state in (State.ENDED, State.FAILED):
                    return [self._publish(name, self._command("release"))]  # it was not there then
            case Received(Topic(_, Kind.STATUS, name), Status() as status):
                if self.roster.take_status(name, status):
                    effects = self._lose([name], "is lost", now)
                self._note_change(now)
            case Received(_, TrainReply() as reply) if reply.run == self.run:
                effects = self._take_reply(reply, now)
            case Received(_, TrainReport() as report) if report.term == self.term:
                effects = self._take_report(report)
            case Returned(ProfileJob()):
                effects = self._take_profile(event, now)
            case Returned(SaveJob() as job):
                self.collector.take_saved(job, event)
                self._is_handed_over = job.ended  # also where the disk fails: see CheckpointFile
        return effects + self._go_on(now)

    def _go_on(self, now: Now) -> list[Effect]:
        """What is due in this state."""
        now_s = now.monotonic_s
        match self.state:
            case State.GATHERING:
                return self._gather(now_s)
            case State.RUNNING | State.DRAINING:
                return self._watch(now)
            case State.HALTING if self._due_s is not None and now_s >= self._due_s:
                return self._restart("tries again", now)
        question = self._question
        if question is None:
            return []
        if not question.waiting or now_s >= question.due_s:
            if self.state is State.PROBING and not question.waiting:
                return self._judge(question, now)
            return self._close(question, now)
        return [self._publish(name, command) for name, command in question.ask(now_s)]

    # ------------------------------------------------------------------- messages

    def _take_offer(self, name: str, offer: TrainOffer, now: Now) -> list[Effect]:
        restarted = self.roster.take_offer(name, offer)
        if restarted:
            self._late.pop(name, None)
        self._note_change(now)
        return self._lose([name], "has restarted", now) if restarted else []

    def _note_change(self, now: Now) -> None:
        """Note that nodes have come, gone or want to leave; statuses and offers are repeated."""
        usable = self.roster.list_usable(), self.roster.list_usable(leaving=False)
        if usable == self._usable:
            return
        self._usable = usable
        self._is_changed = True
        if self.state is State.GATHERING:
            self._due_s = now.monotonic_s + self.settings.gather_s

    def _take_report(self, report: TrainReport) -> list[Effect]:
        self.progress.take_results(report)
        diverged = next((result.batch for result in report.results if result.loss is None), None)
        if diverged is not None and self.is_arranging:
            return self._fail(
                f"the loss of batch {diverged} is not finite; give a smaller --learning-rate, and "
                "look for logarithms, divisions and roots of 0 in a network of your own"
            )
        held = self.arrangement and self.arrangement.range_of(report.sender)
        if held:
            times_s = [profile.forward_s + profile.backward_s for profile in self._profiles]
            self.roster.take_report(report, *held, times_s)
        return []

    # ------------------------------------------------------------------ beginning

    def _gather(self, now_s: float) -> list[Effect]:
        """Wait until no further node has come for a while, then measure the layers here."""
        if self._due_s is None:
            self._due_s = now_s + self.settings.gather_s
        if now_s < self._due_s:
            return []
        if len(self.roster.list_usable()) <= self.settings.least_workers:
            self._due_s = now_s + self.settings.gather_s
            return []
        self.move(Signal.GATHERED)
        self._due_s = None
        return [Call(ProfileJob(self.run), self._profile)]

    def _take_profile(self, returned: Returned, now: Now) -> list[Effect]:
        if self.state is not State.PROFILING:
            return []
        if returned.error:
            return self._fail(returned.error)
        self._profiles = list(returned.value)
        self.move(Signal.PROFILED)
        self.progress.started_s = now.monotonic_s
        return self._halt(now)

    # --------------------------------------------------------------------- running

    def _run(self, now: Now) -> list[Effect]:
        self._check_at = None
        self._moved_s = now.monotonic_s
        return super()._run(now)

    def _watch(self, now: Now) -> list[Effect]:
        runner, arrangement, now_s = self.runner, self.arrangement, now.monotonic_s
        if runner is None or arrangement is None:
            return []
        if self._is_handed_over and self.state is State.RUNNING:
            return self._end(now)
        done = self.progress.done
        if self.progress.update(runner, now_s, now.wall_s):
            self._failed.clear()
        parts = self.member.exchange.fetcher.parts
        if parts != self._parts or self.progress.done != done:
            self._parts, self._moved_s = parts, now_s
        effects: list[Effect] = list(self.collector.update(runner, arrangement))
        if self.state is State.DRAINING:
            return effects + self._drain(runner, now)
        is_overdue = now_s >= self._find_overdue_s(arrangement)
        if self._has_all_batches:
            return self._restart("no copy of the last layers comes", now) if is_overdue else effects
        if is_overdue:
            return effects + self._suspect(now)
        return effects + self._compare(runner, arrangement, now)

    def _suspect(self, now: Now) -> list[Effect]:
        arrangement = self.arrangement
        if arrangement is None or not self.progress.strike(now.monotonic_s):
            return self._restart("no batch ends, though all nodes answer", now)
        self.move(Signal.SUSPECT)
        self._ask_all("probe", arrangement.nodes, now, self.settings.answer_s)
        return []

    def _judge(self, question: Question, now: Now) -> list[Effect]:
        """All nodes answered a probe."""
        self._question = None
        idle = sorted(name for name, reply in question.replies.items() if not reply.ok)
        if idle:
            return self._restart(f"{', '.join(idle)} lost the stage", now)
        self.move(Signal.ANSWERED)
        self.progress.note(now.wall_s, "resend", "a batch is overdue, and all nodes answer")
        return [self._publish(name, self._command("resend")) for name in question.commands]

    def _compare(self, runner: StageRunner, arrangement: Arrangement, now: Now) -> list[Effect]:
        """Compare the layout with the best one, at times and when nodes come or leave."""
        first, every = self.settings.repartition_at
        if self._check_at is None:
            # Each time later: a machine that does other work makes equal devices look unequal.
            self._check_at = runner.backwards + min(every, first * 2**self._changes)
        is_due = bool(every) and runner.backwards >= self._check_at
        if not is_due and not self._is_changed:
            return []
        if is_due:
            self._check_at = runner.backwards + every
        self._is_changed = False
        reason = find_better(
            self.roster, arrangement, self._profiles, self.settings, self.plan_layout
        )
        if reason is None:
            return []
        size = self.settings.round_batches
        self._drain_to = runner.round_end if size else min(runner.forwards + 1, runner.end)
        if self._drain_to >= self.settings.batches:
            return []
        self.move(Signal.DRAIN)
        self._check_at = None
        self._changes += 1
        self._due_s = now.monotonic_s
        self.progress.note(now.wall_s, "drain", reason)
        return self._drain(runner, now)

    def _drain(self, runner: StageRunner, now: Now) -> list[Effect]:
        """Let no further batch in; arrange the nodes again once none is in flight."""
        arrangement, now_s = self.arrangement, now.monotonic_s
        if arrangement is None or (runner.is_idle and runner.backwards >= self._drain_to):
            return self._restart("drained", now)
        if now_s >= self.progress.due_s(len(arrangement.nodes)):
            return self._restart("a batch is overdue while the pipeline is drained", now)
        if self._due_s is None or now_s < self._due_s:
            return []
        self._due_s = now_s + self.settings.retry_s
        command = self._command("drain", number=self._drain_to)
        return [self._publish(name, command) for name in arrangement.nodes]

    def _end(self, now: Now) -> list[Effect]:
        self.move(Signal.END)
        self._due_s = None
        self.progress.note(now.wall_s, "end", "training is complete")
        return self._release_all()
