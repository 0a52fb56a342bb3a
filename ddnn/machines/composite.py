"""Machines made of machines: several in one process, and one around another."""

from __future__ import annotations

from collections.abc import Mapping

from ddnn.protocol.machine import Effect, Event, Machine, Now, find_earliest


class CompositeMachine:
    """Every part takes every event; counts, gauges and subscriptions of the parts are merged."""

    def __init__(self, *parts: Machine) -> None:
        self._parts = parts

    @property
    def counts(self) -> dict[str, int]:
        merged: dict[str, int] = {}
        for part in self._parts:
            for name, count in part.counts.items():
                merged[name] = merged.get(name, 0) + count
        return merged

    @property
    def gauges(self) -> Mapping[str, float]:
        return {name: value for part in self._parts for name, value in part.gauges.items()}

    def subscriptions(self) -> list[str]:
        return sorted({topic for part in self._parts for topic in part.subscriptions()})

    def deadline_s(self) -> float | None:
        return find_earliest([part.deadline_s() for part in self._parts])

    def handle(self, event: Event, now: Now) -> list[Effect]:
        effects: list[Effect] = []
        for part in self._parts:
            effects += part.handle(event, now)
        return effects


class WrappedMachine:
    """Does what the machine that it holds does; a subclass changes some of it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def counts(self) -> Mapping[str, int]:
        return self._machine.counts

    @property
    def gauges(self) -> Mapping[str, float]:
        return self._machine.gauges

    def subscriptions(self) -> list[str]:
        return self._machine.subscriptions()

    def deadline_s(self) -> float | None:
        return self._machine.deadline_s()

    def handle(self, event: Event, now: Now) -> list[Effect]:
        return self._machine.handle(event, now)
