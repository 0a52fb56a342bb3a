"""The lead edge's control of the site's pace: which share of the ticks the cameras take.

    state      signal      next
    OPEN       OVERLOAD    DRAINING   all ticks are taken; work waits too long
    DRAINING   OVERLOAD    DRAINING   what was thinned was not enough
    DRAINING   DRAINED     RISING     what had piled up is done
    DRAINING   ALL         OPEN       thinning changes nothing: it is the links that delay
    RISING     OVERLOAD    DRAINING
    RISING     ALL         OPEN       the site takes all ticks again

Overload is a standing queue, as in CoDel: over an interval even the report that waited least waited
longer than `TARGET` of the edge's deadline, on top of the least delay of the last minutes, which is
that of the links. A queue that vanishes within the interval is none: a link or a node that stood
still has gone on. It is also overload where most cameras miss samples that others have: they lack
the processor, and each skips other ticks.

While a queue stands before the edge, the rate at which it handles reports is its capacity. The pace
falls below it at once, from the first sample on that the edge has not seen. Then it follows the
capacity, which is averaged, since each interval alone says little, and settles where a short queue
stands. Where no work waits, the capacity is at least the present rate: the estimate grows, slowly
at first and faster the longer no work waits.

The cameras may follow the commands of an earlier process of the edge. So the first command says
from which sample on all ticks are taken; what was shed before it stays shed.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from ddnn.core.pace import ALL, Pace, PaceHistory
from ddnn.machines.states import advance

TARGET = 1 / 3  # of the edge's deadline: how long work may wait
INTERVAL_S = 0.1  # the least time over which it is judged
SAMPLES = 5  # the least number of samples by which it is judged
EFFECT_S = 0.2  # from a command until all cameras follow it, without a queue
BEGIN_S = 1.0  # the same for the first command: nothing is known of queues yet
EFFECT_AT_MOST_S = 10.0  # after this time without effect the next command may come
BASE_S = 150.0  # the least delay is that of one to two times so long
SHARE_OF_CAPACITY = 0.9  # to which the pace falls
WHILE_DRAINING = 0.6  # of that, until the queue is gone; less if the queue is long
WHILE_DRAINING_LONG = 0.3
AT_MOST_TO = 1 / 8  # one command does not thin further
AGAIN = 0.7  # where what was thinned was not enough
MEMORY_S = 10.0  # after work last waited: for so long the estimate of the capacity holds
VAIN = 2  # commands in a row without effect: the delay is not of our making
EQUAL = 0.1  # delays that differ by no more than this part are equal
UNEVEN = 0.75  # a camera with a smaller share of the samples lacks the processor
UNEVEN_THINNED = 0.95  # the same while ticks are thinned, until the cameras keep up
CATCHING_UP = 2.0  # seconds by which the queue becomes shorter per second after a stall
STEEP = 0.3  # the queue grows by more than this part of the time
UNEVEN_INTERVALS = 3  # in a row
LEAST_HZ = 1.0
# Growth per second by the seconds since work last waited: slow at the limit of what the site can
# do, and from an eighth to all ticks within ten seconds where the limit is gone.
GROWTH = (0.05, 0.1, 0.2, 0.4, 0.8)
QUEUE = 0.5  # of the target: the queue at which the pace settles
NEAR = 0.5  # of that queue: from here on work waits
AVERAGE_S = 1.0  # time over which the capacity is averaged
CORRECT_S = 1.0  # time within which the queue is brought to its length
SLOWEST = 0.5  # of the capacity: no correction goes below
SETTLING = 0.3  # growth or decline per second, for a queue that is shorter or longer by 100 %
CHANGE = 0.01  # a smaller change of the share is no command
JUMP_S = 60.0  # samples further from the newest one are strange
STRANGE = 16  # so many strange ones in a row, and the devices number samples again


class State(Enum):
    """The states of the pace."""

    OPEN = auto()
    DRAINING = auto()
    RISING = auto()


class Signal(Enum):
    """What moves the pace from one state to the next."""

    OVERLOAD = auto()
    DRAINED = auto()
    ALL = auto()


TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.OPEN, Signal.OVERLOAD): State.DRAINING,
    (State.DRAINING, Signal.OVERLOAD): State.DRAINING,
    (State.DRAINING, Signal.DRAINED): State.RISING,
    (State.DRAINING, Signal.ALL): State.OPEN,
    (State.RISING, Signal.OVERLOAD): State.DRAINING,
    (State.RISING, Signal.ALL): State.OPEN,
}


class _LeastDelay:
    """The least delay of the last minutes: that of the links, without a queue."""

    def __init__(self) -> None:
        self._now = self._before = math.inf
        self._until_s = -math.inf

    def add(self, delay_s: float, now_s: float) -> None:
        if now_s >= self._until_s:
            self._before, self._now = self._now, math.inf
            self._until_s = now_s + BASE_S
        self._now = min(self._now, delay_s)

    def forget(self) -> None:
        self._now = self._before = math.inf

    @property
    def value_s(self) -> float:
        return min(self._now, self._before)


@dataclass(slots=True)
class _Delays:
    """The least, the first and the last delay of one kind of work in an interval."""

    least_s: float
    first_s: float
    last_s: float
    began_s: float  # when the first was noted
    ended_s: float

    @classmethod
    def begin(cls, delay_s: float, now_s: float) -> _Delays:
        return cls(delay_s, delay_s, delay_s, now_s, now_s)

    def add(self, delay_s: float, now_s: float) -> None:
        self.least_s = min(self.least_s, delay_s)
        self.last_s, self.ended_s = delay_s, now_s

    def is_catching_up(self) -> bool:
        """Whether the queue becomes shorter far faster than new work comes."""
        return self.first_s - self.last_s > CATCHING_UP * (self.ended_s - self.began_s)


@dataclass(slots=True)
class _Interval:
    """What was seen in one interval."""

    began_s: float
    delays: dict[str, _Delays] = field(default_factory=dict)  # by kind of work
    samples: set[int] = field(default_factory=set)
    reports: dict[str, int] = field(default_factory=dict)  # by device
    concluded: int = 0  # samples
    parts: dict[str, int] = field(default_factory=dict)  # in concluded samples, by device

    def find_rate_hz(self, now_s: float) -> float:
        """Samples per second of which the reports were handled."""
        if not self.reports or now_s <= self.began_s:
            return 0.0
        return sum(self.reports.values()) / len(self.reports) / (now_s - self.began_s)

    def is_uneven(self, share: float) -> bool:
        """Whether most devices have less than this share of the samples that others have."""
        lacking = [self.parts.get(node, 0) < share * self.concluded for node in self.reports]
        return self.concluded >= SAMPLES and len(lacking) > 1 and 2 * sum(lacking) > len(lacking)


class PaceControl:
    """Chooses the pace. `decide` returns a command where it changes."""

    def __init__(self, edge_s: float) -> None:
        """edge_s: the time from capture within which the edge answers."""
        self._target_s = TARGET * edge_s
        self._long_s = edge_s / 2
        self._queue_s = QUEUE * self._target_s
        self.state = State.OPEN
        self.history = PaceHistory()
        self.counts = {"samples_shed": 0}
        self.delay_s = 0.0  # how long work waited in the last interval
        self._base: dict[str, _LeastDelay] = {}
        self._interval = _Interval(-math.inf)
        self._uneven = 0  # intervals in a row
        self._tick_hz: dict[str, float] = {}  # by device
        self._newest = -1  # the newest sample that was reported
        self._begins = False  # whether `decide` returns the first command
        self._rate_hz = math.inf  # at which samples are taken; infinite: every tick
        self._capacity_hz = math.inf  # an estimate; unknown while infinite
        self._effect = 0  # the first sample taken under the last command, and how long to wait
        self._effect_by_s = -math.inf
        self._waited_s = -math.inf  # when work waited last
        self._settled_s = -math.inf  # when the estimate changed last
        self._before_s = math.inf  # the delay at the last command
        self._vain = self._strange = 0

    @property
    def gauges(self) -> dict[str, float]:
        """The share of ticks that is taken, and how long work waits."""
        share = self.history.newest.share / ALL
        return {"share_taken": share, "queue_delay_s": round(self.delay_s, 4)}

    def is_admitted(self, sample: int) -> bool:
        return self.history.is_admitted(sample)

    # ------------------------------------------------------------------- what is seen

    def note_report(
        self, device: str, sample: int, tick_hz: float, delay_s: float, now_s: float
    ) -> None:
        """Note a report of a device, handled `delay_s` after its capture.

        tick_hz: the device's ticks per second.
        """
        if self._newest < 0:
            self._begin(sample, tick_hz)
        if abs(sample - self._newest) > JUMP_S * tick_hz + 1:
            self._strange += 1
            if self._strange < STRANGE:
                return
            self._begin(sample, tick_hz)
        self._strange = 0
        self._tick_hz[device] = tick_hz
        if sample > self._newest:
            self.counts["samples_shed"] += self.history.count_shed(self._newest + 1, sample)
            self._newest = sample
        interval = self._interval
        interval.samples.add(sample)
        interval.reports[device] = interval.reports.get(device, 0) + 1
        self.note_delay("scores", delay_s, now_s)

    def note_delay(self, work: str, delay_s: float, now_s: float) -> None:
        """Note how long one piece of a kind of work took from the capture on, with its wait."""
        self._base.setdefault(work, _LeastDelay()).add(delay_s, now_s)
        delays = self._interval.delays.setdefault(work, _Delays.begin(delay_s, now_s))
        delays.add(delay_s, now_s)

    def note_sample(self, devices: Collection[str]) -> None:
        """Note a sample that waits no more for reports, and the devices that it has."""
        self._interval.concluded += 1
        parts = self._interval.parts
        for device in devices:
            parts[device] = parts.get(device, 0) + 1

    # ---------------------------------------------------------------------- decisions

    def decide(self, now_s: float) -> Pace | None:
        """The new pace where it changes."""
        if self._begins:
            self._begins = False
            return self.history.newest
        interval = self._interval
        waits = self._newest < self._effect and now_s < self._effect_by_s
        if waits or interval.began_s == -math.inf:
            self._begin_interval(now_s)
            return None
        if now_s < interval.began_s + INTERVAL_S:
            return None
        queues_s = {w: d.least_s - self._base[w].value_s for w, d in interval.delays.items()}
        delay_s = max(queues_s.values(), default=0.0)
        if len(interval.samples) < SAMPLES and delay_s > self._target_s / 4:
            return None  # too few to judge by
        trend_s, self.delay_s = delay_s - self.delay_s, delay_s
        self._uneven = self._uneven + 1 if interval.is_uneven(UNEVEN) else 0
        interval_s = now_s - interval.began_s
        stands = queues_s.get("scores", 0.0) > NEAR * self._queue_s
        measured_hz = interval.find_rate_hz(now_s) if stands else None
        self._begin_interval(now_s)
        if self._is_overload(delay_s, trend_s / interval_s):
            if self.state is State.OPEN and interval.delays["scores"].is_catching_up():
                return None
            self._uneven = 0
            return self._thin(measured_hz, now_s)
        if self.state is State.DRAINING and delay_s < self._target_s / 2:
            self.move(Signal.DRAINED)
            self._settled_s = now_s
            return self._command(self._capacity_hz, now_s, later=True)
        if self.state is not State.RISING:
            return None
        if interval.is_uneven(UNEVEN_THINNED):
            delay_s = max(delay_s, self._target_s)
        return self._settle(delay_s, measured_hz, now_s)

    def _begin(self, sample: int, tick_hz: float) -> None:
        """Begin with a sample, before which nothing is known of the devices."""
        self._newest, self._begins = sample, True
        since = sample + 1 + math.ceil(BEGIN_S * tick_hz)
        self.history = PaceHistory().add(Pace(ALL, since))

    def _begin_interval(self, now_s: float) -> None:
        self._interval = _Interval(now_s)

    def _find_tick_hz(self) -> float:
        """Ticks per second of the site: the middle of what its devices have."""
        rates = sorted(self._tick_hz.values())
        return rates[len(rates) // 2] if rates else 1.0

    def _is_overload(self, delay_s: float, trend: float) -> bool:
        """Whether to thin at once. While the pace follows the capacity it corrects the queue
        itself, unless that is long. trend: seconds by which the queue grows per second."""
        if self.state is State.RISING:
            return delay_s > self._long_s or self._uneven >= UNEVEN_INTERVALS
        grows = delay_s > self._target_s / 3 and trend > STEEP
        return delay_s > self._target_s or grows or self._uneven >= UNEVEN_INTERVALS

    def _thin(self, measured_hz: float | None, now_s: float) -> Pace | None:
        again, delay_s = self.state is State.DRAINING, self.delay_s
        if again and delay_s < (1 - EQUAL) * self._before_s:
            self._before_s = delay_s
            return None  # the queue becomes shorter
        is_vain = again and delay_s < (1 + EQUAL) * self._before_s
        self._vain = self._vain + 1 if is_vain else 0
        if self._vain >= VAIN:
            return self._accept(now_s)
        if again:
            self._capacity_hz *= AGAIN
        else:
            tick_hz = self._find_tick_hz()
            now_hz = min(self._rate_hz, tick_hz)
            if self.state is State.OPEN and now_s > self._waited_s + MEMORY_S:
                # Where no queue of reports stands, other work is the limit.
                self._capacity_hz = measured_hz or AGAIN * now_hz
            highest_hz = SHARE_OF_CAPACITY * min(self._capacity_hz, tick_hz)
            self._capacity_hz = max(highest_hz, AT_MOST_TO * now_hz, LEAST_HZ)
        self.move(Signal.OVERLOAD)
        self._waited_s, self._before_s = now_s, delay_s
        part = WHILE_DRAINING if delay_s < self._long_s else WHILE_DRAINING_LONG
        return self._command(part * self._capacity_hz, now_s)

    def _accept(self, now_s: float) -> Pace | None:
        """Take the present delay for that of the links: thinning does not change it."""
        self._vain = 0
        self._waited_s = -math.inf  # the estimate of the capacity was none
        for base in self._base.values():
            base.forget()
        self.move(Signal.ALL)
        return self._command(math.inf, now_s, later=True)

    def _settle(self, delay_s: float, measured_hz: float | None, now_s: float) -> Pace | None:
        """Follow the capacity, corrected so that the queue gets its length.

        measured_hz: the capacity in the last interval, where the queue of reports shows it.
        """
        passed_s = min(1.0, now_s - self._settled_s)
        self._settled_s = now_s
        if delay_s > NEAR * self._queue_s:
            self._waited_s = now_s
        if measured_hz is not None:
            part = 1 - math.exp(-passed_s / AVERAGE_S)
            self._capacity_hz += part * (measured_hz - self._capacity_hz)
        elif self._waited_s == now_s:
            self._capacity_hz *= (1 + SETTLING * (1 - delay_s / self._queue_s)) ** passed_s
        else:
            growth = GROWTH[min(int(now_s - self._waited_s), len(GROWTH) - 1)]
            self._capacity_hz *= (1 + growth) ** passed_s
        correction = (self._queue_s - delay_s) / CORRECT_S
        rate_hz = self._capacity_hz * max(SLOWEST, 1 + correction)
        if rate_hz < self._find_tick_hz():
            return self._command(rate_hz, now_s, later=True)
        self.move(Signal.ALL)
        return self._command(math.inf, now_s, later=True)

    def _command(self, rate_hz: float, now_s: float, *, later: bool = False) -> Pace | None:
        """Use another rate: for what the edge has not seen yet, or from a later tick on."""
        tick_hz = self._find_tick_hz()
        self._rate_hz = rate_hz if math.isinf(rate_hz) else max(rate_hz, min(LEAST_HZ, tick_hz))
        exact = ALL if math.isinf(rate_hz) else ALL * self._rate_hz / tick_hz
        share = max(1, min(ALL, round(exact)))
        before = self.history.newest.share
        if share == before or (share < ALL and abs(share - before) < CHANGE * before):
            return None
        ahead = math.ceil((max(self.delay_s, 0.0) + EFFECT_S) * tick_hz)
        since = self._newest + 1 + (ahead if later else 0)
        if not later:
            self._effect = self._newest + 1 + ahead
            self._effect_by_s = now_s + EFFECT_AT_MOST_S
        pace = Pace(share, max(since, 0))
        self.history = self.history.add(pace)
        return pace

    def move(self, signal: Signal) -> None:
        self.state = advance(TRANSITIONS, self.state, signal, "the pace")
