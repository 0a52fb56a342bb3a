"""A picture belongs to the burst at whose time it was taken."""

from __future__ import annotations

import pytest

from ddnn.core.site_time import make_sample_id
from ddnn.machines.recorder import Permission, Recorder
from ddnn.protocol.machine import Captured, Connected, Now, Publish, Received
from ddnn.protocol.record_messages import RecordChunk, RecordOrder
from ddnn.protocol.topics import Kind, Topic

SESSION = "20260102-030405-ab"


@pytest.mark.parametrize(("tick", "burst"), [(104, 1), (106, 2)])
def test_a_picture_on_its_way_when_the_next_burst_begins_keeps_its_own(
    tick: int, burst: int
) -> None:
    recorder = Recorder("home", "cam1", 1.0, Permission(True))
    chunks: dict[int, int] = {}

    def give(event: object, now_s: float) -> None:
        for effect in recorder.handle(event, Now(now_s, now_s)):
            if isinstance(effect, Publish) and isinstance(effect.message, RecordChunk):
                chunks[effect.message.sample] = effect.message.burst

    def order(burst: int, from_s: float, now_s: float) -> None:
        message = RecordOrder(SESSION, burst, from_s, from_s + 100.0, 1.0)
        give(Received(Topic("home", Kind.RECORD_ORDER, "laptop"), message), now_s)

    give(Connected(), 100.0)
    order(1, 100.0, 100.0)
    order(2, 105.0, 104.5)  # while the picture of tick 104 is compressed
    sample = make_sample_id(0, tick)
    give(Captured(sample, float(tick), {}, picture=b"a"), 106.1)
    assert chunks == {sample: burst}
