"""Several machines as one."""

from __future__ import annotations

from ddnn.machines.composite import CompositeMachine
from ddnn.protocol.machine import Effect, Event, Forget, Now, Tick


class Part:
    def __init__(self, number: int, deadline_s: float | None) -> None:
        self.number, self._deadline_s = number, deadline_s
        self.counts = {"all": number, f"own{number}": 1}
        self.gauges = {f"gauge{number}": 0.5}

    def handle(self, event: Event, now: Now) -> list[Effect]:
        return [Forget([self.number])]

    def deadline_s(self) -> float | None:
        return self._deadline_s

    def subscriptions(self) -> list[str]:
        return ["a", f"b{self.number}"]


def test_every_part_hears_everything_and_what_they_want_adds_up() -> None:
    parts = CompositeMachine(Part(1, None), Part(2, 7.0), Part(3, 5.0))
    assert parts.handle(Tick(), Now(0, 0)) == [Forget([1]), Forget([2]), Forget([3])]
    assert parts.counts == {"all": 6, "own1": 1, "own2": 1, "own3": 1}
    assert parts.gauges == {"gauge1": 0.5, "gauge2": 0.5, "gauge3": 0.5}
    assert parts.subscriptions() == ["a", "b1", "b2", "b3"]
    assert parts.deadline_s() == 5.0
    assert CompositeMachine(Part(1, None)).deadline_s() is None
