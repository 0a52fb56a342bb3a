"""Which new samples a sender may open: one that sends nonsense must not take the place of others.

Senders number samples by the site's time, so that the numbers of all of them advance together. A
number far from where the others are is not opened; one ahead of them neither, since it would be
answered before they report. Where no others are, a number is compared with the sender's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_RATE = 1000.0  # samples per second
AHEAD_S, BEHIND_S = 0.3, 2.0  # of where the others are: errors of clocks, delays of messages
AHEAD, BEHIND = 3, 3  # the same in samples, at least
JITTER = 0.5  # samples by which the first report of one may come before the others' place
OWN_S = 2.0  # how far from the sender's own numbers, where there are no others
FRESH_S = 2.0  # a sender that has reported since then counts as present
RATE_S, GAP_S = 2.0, 1.0  # of captures: how long the rate is measured, without a longer gap
FIRST_S = 0.3  # the first time
FURTHER = 2.0  # a sender may open so many times what all of them advance ...
SPARE_PER_S = 20.0  # ... and so many samples per second more
CANDIDATES, AGREEING = 64, 3  # so many of the last refused numbers agree: the sender's time was set


@dataclass(slots=True)
class _Track:
    """Where a sender is."""

    sample: int
    at_s: float
    captured_at_s: float
    began: tuple[int, float]  # sample and its capture, from which the rate is measured
    rate: float | None = None
    is_settled: bool = False  # whether the rate was measured for RATE_S
    tokens: float = 0.0
    refilled_s: float = 0.0
    refused: deque[int] = field(default_factory=lambda: deque(maxlen=CANDIDATES))


class Admission:
    """The senders of a site.

    now_s: monotonic. captured_at_s: by the sender's clock; only differences are used, so that the
    rate is that of the samples, however their reports are held back.
    """

    def __init__(self, senders: Iterable[str]) -> None:
        self._tracks: dict[str, _Track | None] = dict.fromkeys(senders)
        # by sender: the last number that was not where the others are, and when it came
        self._strays: dict[str, tuple[int, float]] = {}

    def note(self, sender: str, sample: int, captured_at_s: float, now_s: float) -> None:
        """Note a report on a sample that is open already."""
        track = self._tracks.get(sender)
        if track is None:
            self._tracks[sender] = self._begin(sample, captured_at_s, now_s)
            return
        if sample <= track.sample:
            return
        gap_s = captured_at_s - track.captured_at_s
        track.sample, track.captured_at_s, track.at_s = sample, captured_at_s, now_s
        first, began_s = track.began
        if not 0 < gap_s <= GAP_S:  # it was silent, or its clock was set
            track.began = sample, captured_at_s
        elif captured_at_s - began_s >= (RATE_S if track.is_settled else FIRST_S):
            track.rate = min((sample - first) / (captured_at_s - began_s), MAX_RATE)
            if captured_at_s - began_s >= RATE_S:
                track.began, track.is_settled = (sample, captured_at_s), True

    def admit(self, sender: str, sample: int, captured_at_s: float, now_s: float) -> bool:
        """Whether the sender may open this sample; if so, it is noted."""
        track = self._tracks.get(sender)
        place = self._find_place(sender, now_s)
        if place is not None:
            rate = self._find_rate()
            ahead, behind = max(AHEAD, AHEAD_S * rate), max(BEHIND, BEHIND_S * rate)
            if not place - behind <= sample <= place + ahead:
                self._strays[sender] = sample, now_s
                if not self._have_most_moved(sample, behind, now_s):
                    return False
                self._tracks, track = dict.fromkeys(self._tracks), None
            if track is None or not self._is_near(track, sample, now_s):
                track = self._tracks[sender] = self._begin(sample, captured_at_s, now_s)
        elif track is None:
            track = self._tracks[sender] = self._begin(sample, captured_at_s, now_s)
        elif not self._is_near(track, sample, now_s):
            if not self._was_set(track, sample):
                return False
            track = self._tracks[sender] = self._begin(sample, captured_at_s, now_s)
        if not self._take_token(track, now_s):
            return False
        self.note(sender, sample, captured_at_s, now_s)
        return True

    def find_ahead_s(self, sender: str, sample: int, now_s: float) -> float:
        """How long before the others the sender reports the sample; 0 where that is not known."""
        place, rate = self._find_place(sender, now_s), self._find_rate()
        if place is None or rate <= 0:
            return 0.0
        return max(0.0, sample - place - JITTER) / rate

    def _begin(self, sample: int, captured_at_s: float, now_s: float) -> _Track:
        began = sample, captured_at_s
        return _Track(sample, now_s, captured_at_s, began, tokens=MAX_RATE, refilled_s=now_s)

    def _find_rate(self) -> float:
        """By how much samples advance in a second; one sender of several does not change it."""
        rates = sorted(
            t.rate for t in self._tracks.values() if t is not None and t.rate is not None
        )
        return rates[(len(rates) - 1) // 2] if rates else MAX_RATE

    def _find_place(self, sender: str, now_s: float) -> float | None:
        """Where the others are by now; None: fewer than two are present, or they do not agree."""
        rate = self._find_rate()
        places = sorted(
            track.sample + (now_s - track.at_s) * (0.0 if rate == MAX_RATE else rate)
            for name, track in self._tracks.items()
            if name != sender and track is not None and now_s - track.at_s <= FRESH_S
        )
        if len(places) < 2:
            return None
        middle = places[(len(places) - 1) // 2]
        spread = max(BEHIND, BEHIND_S * rate)
        agreeing = sum(abs(place - middle) <= spread for place in places)
        return middle if agreeing >= 2 and 2 * agreeing > len(places) else None

    def _have_most_moved(self, sample: int, spread: float, now_s: float) -> bool:
        """Whether most senders number their samples again, as after a change of their rate."""
        fresh_s = now_s - FRESH_S
        moved = {
            name
            for name, (other, at_s) in self._strays.items()
            if at_s >= fresh_s and abs(other - sample) <= spread
        }
        present = {n for n, track in self._tracks.items() if track and track.at_s >= fresh_s}
        return 2 * len(moved) > len(present | moved)

    def _is_near(self, track: _Track, sample: int, now_s: float) -> bool:
        ahead = (now_s - track.at_s + OWN_S) * MAX_RATE
        return -OWN_S * MAX_RATE <= sample - track.sample <= ahead

    def _was_set(self, track: _Track, sample: int) -> bool:
        """Whether the numbers that the sender uses now agree with each other."""
        near = OWN_S * MAX_RATE
        agreeing = sum(abs(sample - other) <= near for other in track.refused if other != sample)
        track.refused.append(sample)
        return agreeing >= AGREEING - 1

    def _take_token(self, track: _Track, now_s: float) -> bool:
        per_s = min(FURTHER * self._find_rate() + SPARE_PER_S, MAX_RATE)
        track.tokens = min(track.tokens + (now_s - track.refilled_s) * per_s, per_s)
        track.refilled_s = now_s
        if track.tokens < 1.0:
            return False
        track.tokens -= 1.0
        return True
