"""What `ddnn plan --workers announced` makes of profiles and of the outages that edges observe."""

from __future__ import annotations

import pytest

from ddnn.cli.observer import ObserverSettings
from ddnn.cli.plan import MIN_OBSERVED_S, add_outage
from ddnn.cli.site_observer import SiteObserver
from ddnn.core.device import DeviceProfile
from ddnn.protocol.offload_state import WorkerState
from tests.site_builder import make_offload

PROFILE = DeviceProfile("pi4", 1e9)


def test_a_long_observation_becomes_the_outage() -> None:
    state = WorkerState("live", [0], outage=0.25, observed_s=3000.0)
    made = add_outage(PROFILE, state)
    assert made.outage_probability == pytest.approx((750 + 60) / 3600)
    assert made.flops_per_s == PROFILE.flops_per_s


def test_without_one_the_outage_stays_unknown() -> None:
    assert add_outage(PROFILE, None) == PROFILE
    short = WorkerState("live", [0], outage=1.0, observed_s=MIN_OBSERVED_S - 1)
    assert add_outage(PROFILE, short) == PROFILE


def test_of_two_owners_the_one_that_observed_for_longer_is_asked() -> None:
    observer = SiteObserver(ObserverSettings(site="home"))
    observer.close()  # it does not listen in this test
    for group, seconds in (("edge-a", 100.0), ("edge-b", 900.0)):
        workers = {"pi4": WorkerState("live", [0], observed_s=seconds)}
        observer.offloads["home", group] = make_offload(workers=workers)
    elsewhere = {"pi4": WorkerState("live", [0], observed_s=1e5)}
    observer.offloads["shop", "edge"] = make_offload(workers=elsewhere)
    found = observer.find_worker("pi4")
    assert found is not None
    assert found.observed_s == 900.0
    assert observer.find_worker("pi5") is None
