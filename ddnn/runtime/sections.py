"""The sections that a node runs: fast ones in the machine's thread, slow ones in threads."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ddnn.core.plan import Plan
from ddnn.core.section import Arrays, Section
from ddnn.protocol.machine import (
    Call,
    Compute,
    Computed,
    Loaded,
    PlanRead,
    Returned,
    SectionName,
)

log = logging.getLogger(__name__)

INLINE_S = 0.002  # a faster section runs in the machine's thread: a change of threads costs more
NICENESS = 10  # of threads that compute for others
IDLE_RUN_S = 10.0  # a section without work for so long runs on its example, to find failures


@dataclass(frozen=True, slots=True)
class Ready:
    """A section that was loaded in another thread; None where that failed."""

    name: SectionName
    section: Section | None
    slow: bool = False


class SectionRunner:
    """Sections by name. The machine's thread calls every method.

    `deliver` takes, from any thread, results of slow sections and of calls, loaded
    sections and plans.
    """

    def __init__(
        self,
        sections: Mapping[Any, Section],
        load: Callable[[SectionName], Section] | None,
        deliver: Callable[[Computed | Returned | Ready | PlanRead], None],
    ) -> None:
        self.inferred_s: float | None = None  # monotonic time of the last inference that succeeded
        self._sections = dict(sections)
        self._slow: set[SectionName] = set()
        self._provable: set[SectionName] = set()  # those that have an example
        self._lent: dict[SectionName, bool] = {}  # whether it was computed for others last
        # A section runs in one thread at a time, also where it is idle in one and used in another.
        self._locks: dict[SectionName, threading.Lock] = {n: threading.Lock() for n in sections}
        self._loading: set[SectionName] = set()
        self._load, self._deliver = load, deliver
        # One thread for this node's own slow sections, one for what it computes for others, and
        # one each for its own and others' calls, which may take so long that no section waits.
        self._pools: dict[tuple[str, bool], ThreadPoolExecutor] = {}

    def find_slow_sections(self) -> None:
        """Measure which sections are slow."""
        self._slow = {name for name, section in self._sections.items() if self._is_slow(section)}
        self._provable = {name for name, section in self._sections.items() if section.example()}

    def compute(self, effect: Compute) -> Computed | None:
        """Run a section; return its result, or None where a thread delivers it later."""
        if effect.section not in self._slow:
            return self._run(effect)
        self._lent[effect.section] = effect.lent
        self._open_pool(effect.lent).submit(lambda: self._deliver(self._run(effect)))
        return None

    def call(self, effect: Call) -> None:
        """Call a function in the thread of calls, which delivers what it returns."""
        self._open_pool(effect.lent, "call").submit(lambda: self._deliver(_call(effect)))

    def load(self, name: SectionName) -> None:
        """Load a section in another thread, which delivers the result."""
        self._loading.add(name)
        self._open_pool(lent=True).submit(lambda: self._deliver(self._make_ready(name)))

    def read_plan(self, plan_id: str, find_plan: Callable[[str], Plan | None]) -> None:
        """Read a plan in the thread that loads its sections, which delivers the result."""
        self._open_pool(lent=True).submit(
            lambda: self._deliver(PlanRead(plan_id, find_plan(plan_id)))
        )

    def add(self, ready: Ready) -> Loaded:
        """Add a section that was loaded, unless it was unloaded meanwhile."""
        if ready.name not in self._loading:
            return Loaded(ready.name, False)
        self._loading.discard(ready.name)
        if ready.section is not None:
            self._sections[ready.name] = ready.section
            self._locks[ready.name] = threading.Lock()
            (self._slow.add if ready.slow else self._slow.discard)(ready.name)
            if ready.section.example():
                self._provable.add(ready.name)
        return Loaded(ready.name, ready.section is not None)

    def unload(self, name: SectionName) -> None:
        self._loading.discard(name)
        self._provable.discard(name)
        for kept in (self._sections, self._locks):
            kept.pop(name, None)

    @property
    def can_prove(self) -> bool:
        """Whether a section runs on its example. Safe in any thread."""
        return bool(self._provable)

    def run_idle_sections(self, now_s: float) -> None:
        """Run sections that had no work for a while on their examples, to find failures."""
        if self.inferred_s is not None and now_s - self.inferred_s < IDLE_RUN_S:
            return
        for name, section in self._sections.items():
            inputs: Arrays = section.example()
            if inputs:
                effect = Compute(("prove", 0), name, inputs)
                if name in self._slow:
                    self._open_pool(self._lent.get(name, False)).submit(self._run, effect)
                else:
                    self._run(effect)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, effect: Compute) -> Computed:
        try:
            with self._locks[effect.section]:
                outputs = self._sections[effect.section](effect.inputs)
            self.inferred_s = time.monotonic()
            return Computed(effect.job, outputs)
        except Exception as error:  # of any type: the machine must get a result
            log.error("section %s failed: %s: %s", effect.section, type(error).__name__, error)
            return Computed(effect.job, None)

    def _make_ready(self, name: SectionName) -> Ready:
        if self._load is None:
            return Ready(name, None)
        try:
            section = self._load(name)
            return Ready(name, section, self._is_slow(section))
        except Exception as error:  # of any type: the machine must get a result
            log.error("section %s not loaded: %s", name, error)
            return Ready(name, None)

    def _is_slow(self, section: Section) -> bool:
        """Whether the last of three runs takes longer than INLINE_S."""
        inputs: Arrays = section.example()
        took_s = 0.0
        for _ in range(3 if inputs else 0):
            started_s = time.perf_counter()
            section(inputs)
            self.inferred_s = time.monotonic()
            took_s = time.perf_counter() - started_s
        return took_s > INLINE_S

    def _open_pool(self, lent: bool, work: str = "section") -> ThreadPoolExecutor:
        key = (work, lent)
        if key not in self._pools:
            name = f"lent {work}" if lent else work
            self._pools[key] = ThreadPoolExecutor(1, name, lower_priority if lent else None)
        return self._pools[key]


def _call(effect: Call) -> Returned:
    started_s = time.perf_counter()
    try:
        value, error = effect.function(), ""
    except Exception as raised:  # of any type: the machine must get a result
        value, error = None, f"{type(raised).__name__}: {raised}"
        log.error("%s failed: %s", effect.job, error)
    return Returned(effect.job, value, time.perf_counter() - started_s, error)


def lower_priority() -> None:
    """Lower the priority of the current thread (Linux counts niceness by thread)."""
    with contextlib.suppress(OSError, AttributeError):
        thread = threading.get_native_id()
        if os.getpriority(os.PRIO_PROCESS, thread) < NICENESS:
            os.setpriority(os.PRIO_PROCESS, thread, NICENESS)
