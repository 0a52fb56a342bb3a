"""Processes are killed and stopped for real; every sample is answered by its deadline all the same.

One site lives through all faults: every node that went away comes back and takes part again, and
no other is restarted for it.
"""

from __future__ import annotations

import signal
import time

import pytest

from tests.e2e.site_checks import is_recovered, wait_for_answers, wait_until

pytestmark = pytest.mark.timed

DEADLINE_S = 1.5
DOWN_S = 2.5
RECOVER_S = 20.0
DEVICES = [f"cam{i}" for i in range(1, 7)]

FAULTS = {
    "kill one device": [("kill", "cam3")],
    "kill five devices": [("kill", device) for device in DEVICES[1:]],
    "stop two devices": [("stop", "cam1"), ("stop", "cam6")],
    "kill the edge": [("kill", "edge")],
    "stop the edge": [("stop", "edge")],
    "kill the cloud": [("kill", "cloud")],
    "stop the cloud": [("stop", "cloud")],
    "kill the broker": [("kill", "broker")],
    "stop the broker": [("stop", "broker")],
    "kill edge and cloud": [("kill", "edge"), ("kill", "cloud")],
    "kill a device, stop the edge": [("kill", "cam2"), ("stop", "edge")],
    "kill broker, edge and a device": [("kill", "broker"), ("kill", "edge"), ("kill", "cam4")],
}


def live_through(site, fault: str) -> None:
    pids = {node: site.fleet.find_pid(node) for node in site.fleet.nodes}
    first = site.tick()
    for what, node in FAULTS[fault]:
        site.fleet.send_signal(node, signal.SIGKILL if what == "kill" else signal.SIGSTOP)
    time.sleep(DOWN_S)
    for what, node in FAULTS[fault]:
        if what == "kill":
            site.fleet.start(node)
        else:
            site.fleet.send_signal(node, signal.SIGCONT)
    wait_until(lambda: is_recovered(site), RECOVER_S, f"{fault}: recovery")
    wanted = range(first, site.tick() - int(DEADLINE_S * site.rate_hz))

    # After a stall the edge may take fewer ticks for a moment, and says which.
    missing = wait_for_answers(site, wanted, RECOVER_S)
    assert not missing, (fault, missing, wanted, site.watcher.pace)
    assert len(site.list_stored(wanted)) > len(wanted) / 2, fault
    for stored in site.list_stored(wanted):
        took_s = stored.first_answered_at_s - stored.answer.captured_at_s
        assert took_s <= DEADLINE_S, (fault, stored)
        assert stored.answer.label >= 0, (fault, stored)
    mended = {node for what, node in FAULTS[fault] if what == "kill"}
    assert {n for n in pids if site.fleet.find_pid(n) != pids[n]} == mended, fault
    assert all(site.fleet.is_alive(node) for node in pids), fault


@pytest.mark.timeout(400)
@pytest.mark.parametrize("broker", ["mosquitto", "embedded"])
def test_every_sample_is_answered(open_site, scenes_bundle, scenes_frames, scenes_split, broker):
    site = open_site(
        scenes_bundle,
        scenes_frames,
        scenes_split.labels,
        broker,
        rate_hz=10.0,
        deadline_s=DEADLINE_S,
    )
    wait_until(lambda: is_recovered(site), RECOVER_S, "start")
    faults = FAULTS if broker == "mosquitto" else ["kill the edge", "kill the broker"]
    for fault in faults:
        live_through(site, fault)
