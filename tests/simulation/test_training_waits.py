"""What a training waits for, and what it must not wait for: presence that is repeated, copies of
nodes that are gone, stages that are late, work that always fails."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial

import numpy as np
import pytest

from ddnn.core.device import DeviceProfile
from ddnn.pipeline.driver_states import State
from ddnn.pipeline.member import BuildJob
from ddnn.pipeline.settings import Settings
from ddnn.protocol.messages import Status
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.simulated_network import Network
from tests.dense_stage import DenseFactory
from tests.simulation.training_site import CENTRAL, SITE, TrainingSite


def repeat_status(site: TrainingSite, name: str, every_s: float) -> None:
    """As every node does with its statistics."""
    site.simulation.publish(Topic(SITE, Kind.STATUS, name), Status("device", 1, "online"))
    site.simulation.at(site.simulation.now_s + every_s, partial(repeat_status, site, name, every_s))


def run_until_state(site: TrainingSite, state: State, limit_s: float = 100.0) -> None:
    until_s = site.simulation.now_s + limit_s
    while site.central.driver.state is not state:
        assert site.simulation.now_s < until_s, site.describe()
        site.simulation.run(site.simulation.now_s + 0.002)
        assert site.simulation.failures == []


def test_statuses_that_are_repeated_change_nothing() -> None:
    settings = Settings(60, repartition_at=(1000, 1000), choose_order=False)
    site = TrainingSite(1, settings)
    for camera in range(6):
        repeat_status(site, f"cam{camera}", 0.7 + 0.1 * camera)
    site.run_until(1, limit_s=10.0)
    driver, compared = site.central.driver, []
    plan_layout = driver.plan_layout

    def count(*arguments):
        compared.append(1)
        return plan_layout(*arguments)

    driver.plan_layout = count
    site.run()
    assert compared == []
    assert driver.term == 1


def test_a_node_that_dies_while_its_layers_are_fetched_is_not_waited_for() -> None:
    """It wanted to leave, so it is not in the next layout, and others fetch its layers."""
    site = TrainingSite(1, Settings(60), network=Network(latency_s=0.05))
    site.run_until(20)
    site.leave("worker1")
    run_until_state(site, State.HOLDING)
    driver = site.central.driver
    assert list(driver.arrangement.nodes) == [CENTRAL]
    assert "worker1" in driver.arrangement.restoration.list_holders()
    site.simulation.crash(site.node("worker1"))
    site.run(limit_s=60.0)
    assert len(site.losses) == 60


class LateBuild(TrainingSite):
    """The first stage of worker1 takes long to build: it imports and compiles."""

    late_s = 6.0

    def _cost_s(self, name: str, job: Hashable) -> float:
        if isinstance(job, BuildJob) and name == "worker1":
            seconds, self.late_s = self.late_s, 0.01
            return seconds
        return super()._cost_s(name, job)


def test_a_node_that_is_late_takes_layers_later() -> None:
    factory = DenseFactory([6, 8, 8, 8, 8, 4], layer_s=0.05)
    site = LateBuild(1, Settings(300, hold_s=3.0), factory=factory)
    site.run()
    texts = [entry.text for entry in site.central.driver.progress.timeline]
    assert "worker1 did not answer" in texts
    assert "worker1" in site.central.driver.arrangement.nodes
    assert not site.worker("worker1").is_at_work


@pytest.mark.parametrize("restore", ["fresh", "consistent"])
def test_work_that_always_fails_ends_the_training(restore) -> None:
    """Also where the batches before it are computed again each time."""
    site = TrainingSite(1, Settings(60, restore=restore, chain_every=5, global_every=10))
    data = site.data

    def fail(batch: int):
        if batch == 37:
            raise ValueError("a damaged picture")
        return data(batch)

    site.central.member._data = fail
    run_until_state(site, State.FAILED)
    assert "a damaged picture" in site.central.driver.error


def test_copies_of_the_last_layers_may_take_long() -> None:
    """Far longer than a batch, over a thin link."""
    profiles = {"worker1": DeviceProfile("worker1", 1e9, uplink_bits_per_s=3e5)}
    factory = DenseFactory([6, 200, 200, 200, 4], layer_s=0.05)
    settings = Settings(12, repartition_at=(0, 0), equal_capacities=True, choose_order=False)
    site = TrainingSite(1, settings, factory=factory, profiles=profiles)
    site.run_until(12)
    term, since_s = site.central.driver.term, site.simulation.now_s
    site.run()
    assert site.central.driver.term == term
    assert site.simulation.now_s - since_s > 10.0


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    site = TrainingSite(1, Settings(1000))
    data = site.data

    def diverge(batch: int):
        inputs, labels = data(batch)
        return (inputs * np.float32(np.nan) if batch == 20 else inputs), labels

    site.central.member._data = diverge
    run_until_state(site, State.FAILED)
    assert "the loss of batch 20 is not finite" in site.central.driver.error
    assert site.done < 60


def test_a_disk_that_fails_at_the_end_does_not_keep_a_training_going() -> None:
    """The trained layers are there all the same: see CheckpointFile."""
    site = TrainingSite(1, Settings(40))
    save = site.central.driver.collector._save

    def fail(checkpoint) -> None:
        save(checkpoint)
        raise OSError("No space left on device")

    site.central.driver.collector._save = fail
    site.run(limit_s=60.0)
    assert site.central.driver.term == 1


def test_a_node_that_stalls_now_and_then_takes_layers_each_time_it_is_back() -> None:
    factory = DenseFactory([6, 8, 8, 8, 8, 4], layer_s=0.05)
    site = TrainingSite(1, Settings(1200), factory=factory)
    for begin_s in (10.0, 60.0, 110.0):
        site.simulation.at(begin_s, partial(site.simulation.stall, site.node("worker1")))
        site.simulation.at(begin_s + 15.0, partial(site.simulation.resume, site.node("worker1")))
    site.simulation.run(150.0)
    assert site.central.driver.state is State.RUNNING, site.describe()
    assert "worker1" in site.central.driver.arrangement.nodes
    site.run()
    assert not site.worker("worker1").is_at_work


def test_a_node_that_was_refused_is_released() -> None:
    site = LateBuild(1, Settings(60, hold_s=3.0))
    site.central.driver.roster.refuse("worker1")
    run_until_state(site, State.HOLDING)
    site.central.driver.roster.refuse("worker1")
    site.run()
    assert not site.worker("worker1").is_at_work
