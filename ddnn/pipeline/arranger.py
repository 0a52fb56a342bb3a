"""Arranges the nodes of a training: halt, hold, start, in a new term.

A node that is lost, or that does not answer in time, begins this again without it. The states are
those of `ddnn.pipeline.driver_states`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ddnn.errors import InfeasiblePlanError
from ddnn.machines.states import advance
from ddnn.pipeline.collector import Collector
from ddnn.pipeline.driver_states import TRANSITIONS, WORKING, Signal, State
from ddnn.pipeline.member import Member
from ddnn.pipeline.planner import (
    Arrangement,
    PlanLayout,
    arrange,
    make_assignment,
    plan_layout,
    read_copies,
)
from ddnn.pipeline.progress import Progress
from ddnn.pipeline.question import Question
from ddnn.pipeline.roster import Roster
from ddnn.pipeline.runner import StageRunner
from ddnn.pipeline.settings import Settings
from ddnn.pipeline.sources import INITIAL
from ddnn.pipeline.stage import LayerProfile
from ddnn.protocol.machine import Effect, Log, Now, Publish
from ddnn.protocol.topics import Kind, Topic
from ddnn.protocol.train_messages import (
    Action,
    TrainAssignment,
    TrainCommand,
    TrainReply,
)

SLOWER = 4.0  # times what fetching the layers is expected to take
LATE_AT_MOST = 2  # times that a node does not get ready in time
ATTEMPTS = 3  # of a node that fails at its work, before the others do without it


class Arranger:
    """The way from one layout to the next. `member` is the central node's own stage."""

    def __init__(
        self,
        site: str,
        run: str,
        member: Member,
        roster: Roster,
        collector: Collector,
        settings: Settings,
        term: int = 0,
    ) -> None:
        self.site, self.run, self.settings = site, run, settings
        self.member, self.roster, self.collector = member, roster, collector
        self.state, self.term = State.GATHERING, term
        self.progress = Progress(settings)
        self.arrangement: Arrangement | None = None
        self.error = ""  # why it has failed
        self.plan_layout: PlanLayout = plan_layout  # another rule, to compare with
        self._profiles: list[LayerProfile] = []
        self._question: Question | None = None
        self._number = 0
        self._due_s: float | None = None  # of the state, where no question is open
        self._is_changed = False  # a node has come or wants to leave
        self._failed: Counter[str] = Counter()  # failures of nodes at their work
        self._late: Counter[str] = Counter()  # times that nodes did not get ready in time
        self._is_handed_over = False  # all layers of the trained network are here

    def move(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, f"training {self.run}")

    @property
    def runner(self) -> StageRunner | None:
        """The central node's own stage in this term; None before it starts."""
        runner = self.member.runner
        return runner if runner is not None and runner.place.term == self.term else None

    def _publish(self, to: str, command: TrainCommand) -> Publish:
        return Publish(Topic(self.site, Kind.TRAIN_COMMAND, to), command)

    def _command(
        self, action: Action, assignment: TrainAssignment | None = None, number: int | None = None
    ) -> TrainCommand:
        number = self._number if number is None else number
        return TrainCommand(self.member.node, self.run, self.term, action, number, assignment)

    def _open(self, commands: Mapping[str, TrainCommand], now: Now, due_in_s: float) -> None:
        now_s = now.monotonic_s
        self._question = Question(commands, now_s, now_s + due_in_s, self.settings.retry_s)
        self._due_s = None

    def _ask_all(self, action: Action, names: Iterable[str], now: Now, due_in_s: float) -> None:
        self._number += 1
        self._open({name: self._command(action) for name in names}, now, due_in_s)

    # --------------------------------------------------------------------- replies

    def _take_reply(self, reply: TrainReply, now: Now) -> list[Effect]:
        if reply.term > self.term:  # of a central node before this one
            self.term = reply.term
            return self._restart("a later term is known", now) if self.is_arranging else []
        if self.roster.note_alive(reply.sender):  # it was slow, and can take layers again
            self._is_changed = True
        if reply.term < self.term and reply.answers != "halt":
            return []
        question = self._question
        if question is not None and question.take(reply):
            if not reply.ok and reply.answers in ("hold", "start"):
                return self._note_failure(reply.sender, reply.error, now)
        elif not reply.ok and reply.answers == "start" and self.state in WORKING:
            return self._note_failure(reply.sender, reply.error, now)
        return []

    @property
    def is_arranging(self) -> bool:
        return self.state is State.HALTING or self.state in WORKING

    def _note_failure(self, name: str, error: str, now: Now) -> list[Effect]:
        """A node fails at its work: once more, then without it."""
        self._failed[name] += 1
        if self._failed[name] >= ATTEMPTS:
            if name == self.member.node:
                return self._fail(error)
            self.roster.refuse(name)
        return self._restart(f"{name} failed: {error}", now)

    # ----------------------------------------------------------------- arrangement

    def _lose(self, names: Iterable[str], how: str, now: Now) -> list[Effect]:
        """Nodes are gone: arrange the others again if they were in use."""
        lost = set(names)
        if self.state is State.HALTING and self._question is not None:
            self._question.drop(lost)
        if self.state not in WORKING or self.arrangement is None:
            return []
        used = set(self.arrangement.nodes)
        if self.state is State.HOLDING:  # nodes that are not in the layout may hold its layers
            used |= self.arrangement.restoration.list_holders()
        if not lost & used:
            text = f"{', '.join(sorted(lost))} {how}; it had no layers"
            self.progress.note(now.wall_s, "loss", text)
            return [Log("warning", "training: %s", (text,))]
        self.progress.failures += len(lost & used)
        return self._restart(f"{', '.join(sorted(lost & used))} {how}", now)

    def _restart(self, reason: str, now: Now) -> list[Effect]:
        self.move(Signal.RESTART)
        self.progress.note(now.wall_s, "restart", reason)
        return [Log("warning", "training: %s", (reason,)), *self._halt(now)]

    def _halt(self, now: Now) -> list[Effect]:
        """Begin a new term: everyone stops and reports what it holds."""
        self.term += 1
        self._is_changed = self._is_handed_over = False
        self.collector.stop()
        longest_s = max((p.forward_s + p.backward_s for p in self._profiles), default=0.0) * len(
            self._profiles
        )
        self._ask_all(
            "halt", self.roster.list_usable(), now, self.settings.answer_s + 2 * longest_s
        )
        # Those that did not answer are not waited for; they may be back.
        silent = self.roster.list_silent()
        return [self._publish(name, self._command("halt")) for name in silent]

    def _close(self, question: Question, now: Now) -> list[Effect]:
        """A question is answered, or its time is over."""
        silent = question.waiting
        # An operation of its own takes long: it does end. A copy from another node may not come.
        if self.member.node in silent and self.member.is_computing:
            question.due_s = now.monotonic_s + self.settings.answer_s
            return []
        self._question = None
        self.roster.note_silent(silent)
        if self.state is State.HALTING:
            return self._plan(question, now)
        if silent:
            self.progress.failures += len(silent)
            if self.state is State.HOLDING:
                self._note_late(silent)
            return self._restart(f"{', '.join(sorted(silent))} did not answer", now)
        match self.state:
            case State.HOLDING:
                self.move(Signal.HELD)
                self.progress.note(now.wall_s, "held", "all nodes have their layers")
                self._ask_all("start", question.replies, now, self.settings.answer_s)
            case State.STARTING:
                return self._run(now)
        return []

    def _note_late(self, names: Iterable[str]) -> None:
        """Nodes did not get ready in time. After the second time in a row they are left out until
        they restart, since all others wait for them each time."""
        for name in names:
            self._late[name] += 1
            if self._late[name] >= LATE_AT_MOST and name != self.member.node:
                self.roster.refuse(name)

    def _plan(self, question: Question, now: Now) -> list[Effect]:
        """Who holds what is known: choose the layout and where each layer comes from."""
        inventories = {name: read_copies(reply) for name, reply in question.replies.items()}
        names = [name for name in self.roster.list_usable(leaving=False) if name in inventories]
        own = inventories[self.member.node]
        version = max((copy.stamp for copy in own), default=INITIAL).version
        try:
            self.arrangement = arrange(
                self.roster,
                names,
                self._profiles,
                self.settings,
                inventories,
                version,
                self.progress.failure_rate(len(names), now.monotonic_s),
                self.plan_layout,
            )
        except InfeasiblePlanError as error:
            self._due_s = now.monotonic_s + self.settings.answer_s
            return [Log("warning", "training waits for more nodes: %s", (error,))]
        self.move(Signal.PLANNED)
        arrangement = self.arrangement
        text = str(arrangement)
        self.progress.note(now.wall_s, "layout", text)
        self._number += 1
        commands = {
            name: self._command(
                "hold",
                make_assignment(arrangement, name, self.settings, self.roster.network),
            )
            for name in arrangement.nodes
        }
        self._open(commands, now, self.settings.hold_s + SLOWER * arrangement.move_s)
        return [
            Log(
                "info",
                "training: term %d from step %d: %s",
                (self.term, arrangement.restoration.version, text),
            )
        ]

    def _run(self, now: Now) -> list[Effect]:
        """All nodes have started: those that are not needed may forget what they hold."""
        self.move(Signal.STARTED)
        arrangement, runner = self.arrangement, self.runner
        if arrangement is None or runner is None:
            return []
        for name in arrangement.nodes:
            self._late.pop(name, None)
        self.progress.begin(runner.backwards, now.monotonic_s)
        self.progress.note(now.wall_s, "start", f"from batch {runner.backwards}")
        spare = [n for n in self.roster.list_online() if n not in arrangement.nodes]
        return [self._publish(name, self._command("release")) for name in spare]

    def _fail(self, error: str) -> list[Effect]:
        self.move(Signal.FAIL)
        self.error, self._question, self._due_s = error, None, None
        return [Log("error", "training failed: %s", (error,)), *self._release_all()]

    def _release_all(self) -> list[Effect]:
        names = [self.member.node, *self.roster.list_online()]
        return [self._publish(name, self._command("release")) for name in names]
