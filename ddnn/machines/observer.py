"""A part of a composite machine that watches the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ddnn.protocol.machine import Effect, Event, Now


class Observer:
    """Passes every event to `observe`, and shows counts and gauges of what else the process runs.

    It has no effects. As the first part of a composite machine it takes each event before the
    other parts do.
    """

    def __init__(
        self,
        observe: Callable[[Event], None] | None = None,
        counts: Callable[[], Mapping[str, int]] = dict,
        gauges: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._observe, self._counts, self._gauges = observe, counts, gauges

    @property
    def counts(self) -> Mapping[str, int]:
        return self._counts()

    @property
    def gauges(self) -> Mapping[str, float]:
        return self._gauges()

    def subscriptions(self) -> list[str]:
        return []

    def deadline_s(self) -> float | None:
        return None

    def handle(self, event: Event, now: Now) -> list[Effect]:
        if self._observe is not None:
            self._observe(event)
        return []
