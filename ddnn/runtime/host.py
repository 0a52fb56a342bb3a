"""The host of a machine on a real node: a broker connection, sections, a file and a database."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ddnn.core.plan import Plan
from ddnn.core.section import Section
from ddnn.protocol.machine import (
    Call,
    Compute,
    Computed,
    Event,
    Forget,
    Keep,
    KeepTime,
    Load,
    Log,
    PlanRead,
    Publish,
    ReadPlan,
    Returned,
    Save,
    Saved,
    SectionName,
    Subscribe,
    Unload,
    UseBundle,
)
from ddnn.protocol.messages import Answer
from ddnn.runtime.guard import Guard
from ddnn.runtime.packets import divide, pack
from ddnn.runtime.sections import Ready, SectionRunner
from ddnn.runtime.time_file import TimeFile
from ddnn.runtime.transport import Transport

log = logging.getLogger(__name__)

REPORT_EVERY_S = 60.0  # an error of the disk that lasts is logged once in this time


class AnswerLog(Protocol):
    """Keeps answers until they are confirmed. Both methods raise OSError where the disk fails."""

    def keep(self, answer: Answer) -> None: ...
    def forget(self, samples: Sequence[int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Resources:
    """What a host needs to perform effects, apart from the connection; each may be missing.

    `sections` are by SectionName. `load` makes the section of a Load effect, `find_plan` reads the
    plan of a ReadPlan effect; both are called in another thread.
    `save` takes the answers of a Save effect and a function to call once they are stored.
    """

    sections: Mapping[Any, Section] = field(default_factory=dict)
    load: Callable[[SectionName], Section] | None = None
    find_plan: Callable[[str], Plan | None] = lambda plan_id: None
    answer_log: AnswerLog | None = None
    time_file: TimeFile | None = None
    save: Callable[[Save, Callable[[Saved], None]], None] | None = None


class NodeHost:
    """Performs effects in the machine's thread; see ddnn.runtime.effects.Host.

    Events that follow at once are in `results`; `deliver` takes later ones, from any thread.
    `use_bundle` announces the bundle of a UseBundle effect.
    """

    def __init__(
        self,
        transport: Transport,
        resources: Resources,
        deliver: Callable[[Computed | Returned | Ready | PlanRead | Saved], None],
        guard: Guard | None = None,
        use_bundle: Callable[[str], None] = lambda bundle: None,
    ) -> None:
        self._use_bundle = use_bundle
        self.counts: Counter[str] = Counter()
        self.results: list[Event] = []
        self.sections = SectionRunner(resources.sections, resources.load, deliver)
        self._transport, self._deliver, self._guard = transport, deliver, guard
        self._answer_log, self._save = resources.answer_log, resources.save
        self._time_file = resources.time_file
        self._find_plan = resources.find_plan
        self._report_disk_at_s = -math.inf

    @property
    def gauges(self) -> dict[str, float]:
        """Those of the guard, and seconds since the last inference that succeeded."""
        gauges = {} if self._guard is None else dict(self._guard.gauges)
        if self.sections.inferred_s is not None:
            gauges["inference_age_s"] = time.monotonic() - self.sections.inferred_s
        return gauges

    def publish(self, effect: Publish) -> None:
        packet = pack(effect.topic, effect.message, self._guard)
        limit = self._transport.max_packet_bytes
        if limit is not None and packet.wire_bytes >= limit:
            parts = divide(effect.message)
            for part in parts or ():
                self.publish(Publish(effect.topic, part))
            if parts:
                return
        self.counts["messages_sent"] += 1
        self.counts["bytes_sent"] += packet.wire_bytes
        self._transport.publish(*packet)

    def compute(self, effect: Compute) -> None:
        computed = self.sections.compute(effect)
        if computed is not None:
            self.results.append(computed)

    def call(self, effect: Call) -> None:
        self.sections.call(effect)

    def load(self, effect: Load) -> None:
        self.sections.load(effect.section)

    def unload(self, effect: Unload) -> None:
        self.sections.unload(effect.section)

    def read_plan(self, effect: ReadPlan) -> None:
        self.sections.read_plan(effect.id, self._find_plan)

    def subscribe(self, effect: Subscribe) -> None:
        self._transport.subscribe(effect.filters)

    def keep(self, effect: Keep) -> None:
        if self._answer_log is not None:
            with self._report_disk_errors():
                self._answer_log.keep(effect.answer)

    def forget(self, effect: Forget) -> None:
        if self._answer_log is not None:
            with self._report_disk_errors():
                self._answer_log.forget(effect.samples)

    def keep_time(self, effect: KeepTime) -> None:
        if self._time_file is not None:
            try:
                self._time_file.write(effect.time)
            except OSError as error:
                self.counts["time_file_failed"] += 1
                log.error("the site's time is not on disk: %s", error)

    def save(self, effect: Save) -> None:
        if self._save is not None:
            self._save(effect, self._deliver)

    def use_bundle(self, effect: UseBundle) -> None:
        self._use_bundle(effect.bundle)

    def log(self, effect: Log) -> None:
        log.log(getattr(logging, effect.level.upper()), effect.message, *effect.arguments)

    @contextmanager
    def _report_disk_errors(self) -> Iterator[None]:
        """Report errors of the disk, but continue: answers are still published without the log."""
        try:
            yield
        except OSError as error:
            self.counts["answer_log_failed"] += 1
            now_s = time.monotonic()
            if now_s >= self._report_disk_at_s:  # a full disk fails at every answer
                self._report_disk_at_s = now_s + REPORT_EVERY_S
                log.error("answers are not on disk: %s", error)
