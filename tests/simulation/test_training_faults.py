"""The fault matrix: what happens to a node x when it happens x to how many nodes.

Training ends in every case, no exception is raised, every batch has a result, and the copies are
not older than their periods allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddnn.pipeline.driver_states import State as Driving
from ddnn.pipeline.member import State as Holding
from ddnn.pipeline.settings import Settings
from ddnn.pipeline.sources import Stamp
from ddnn.protocol.train_messages import TrainCommand, TrainFetch, TrainFlow, TrainPart, TrainReply
from ddnn.runtime.packets import unpack
from ddnn.runtime.simulated_network import Network
from tests.dense_stage import DenseFactory
from tests.simulation.training_site import CENTRAL, TrainingSite, assert_equal_layers

BATCHES, CHAIN, GLOBAL = 60, 5, 10
PACE = {"answer_s": 0.5, "hold_s": 5.0, "retry_s": 0.1, "least_timeout_s": 0.2, "gather_s": 0.5}
FRESH = Settings(BATCHES, chain_every=CHAIN, global_every=GLOBAL, **PACE)
CONSISTENT = Settings(
    BATCHES, delay=4, chain_every=CHAIN, global_every=GLOBAL, restore="consistent", **PACE
)
FACTORY = DenseFactory([6, 8, 8, 8, 8, 4], rate=0.05)
WORKERS = {"one": ["worker2"], "adjacent": ["worker1", "worker2"], "all": None}


# Moments at which a fault strikes. Each is a condition on the site.


def is_at_work(site: TrainingSite, work: str) -> bool:
    for name in site.names:
        runner = site.worker(name).member.runner if site.worker(name) else None
        if runner is not None and getattr(runner.busy, "work", "") in (work, "train"):
            return True
    return False


def is_fetching(site: TrainingSite) -> bool:
    return any(site.worker(n) and len(site.worker(n).member.exchange.fetcher) for n in site.names)


def is_held(site: TrainingSite, state: Holding) -> bool:
    return any(site.worker(n) and site.worker(n).member.state is state for n in site.names)


MOMENTS: dict[str, Callable[[TrainingSite], bool]] = {
    "forward": lambda site: is_at_work(site, "forward"),
    "backward": lambda site: is_at_work(site, "backward"),
    "replicate": is_fetching,
    "probe": lambda site: site.central.driver.state is Driving.PROBING,
    "redistribute": lambda site: is_held(site, Holding.HOLDING),
    "commit": lambda site: site.central.driver.state is Driving.STARTING,
}
DURING_RECOVERY = ("redistribute", "commit")


def crash(site: TrainingSite, name: str) -> None:
    site.simulation.crash(site.node(name))


def restart(site: TrainingSite, name: str) -> None:
    crash(site, name)
    site.simulation.start(site.node(name))


def stall(site: TrainingSite, name: str) -> None:
    site.simulation.stall(site.node(name))
    resumed_s = site.simulation.now_s + 3.0
    site.simulation.at(resumed_s, lambda: site.simulation.resume(site.node(name)))


def slow(site: TrainingSite, name: str) -> None:
    site.slow[name] = 6.0


FAULTS = {"SIGKILL": crash, "SIGSTOP": stall, "restart": restart, "slow": slow}


def run_to(site: TrainingSite, moment: str) -> None:
    """Run until the moment comes; recoveries are brought about by the loss of worker3."""
    site.run_until(23)
    if moment in DURING_RECOVERY:
        crash(site, "worker3")
    if moment == "probe":  # a message is lost: a batch is overdue, and all are probed
        lose_next(site, TrainFlow)
    for _ in range(20_000):
        if MOMENTS[moment](site):
            return
        site.simulation.run(site.simulation.now_s + 0.0005)
    raise AssertionError(f"{moment} did not come\n{site.describe()}")


@pytest.mark.parametrize("mode", [FRESH, CONSISTENT], ids=["fresh", "consistent"])
@pytest.mark.parametrize("whom", WORKERS)
@pytest.mark.parametrize(("fault", "moment"), [*product(FAULTS, MOMENTS)])
def test_training_ends_whatever_happens_to_nodes(fault, moment, whom, mode) -> None:
    site = TrainingSite(3, mode, factory=FACTORY)
    run_to(site, moment)
    for name in WORKERS[whom] or site.names:
        if site.worker(name) is not None:
            FAULTS[fault](site, name)
    check_end(site)


# ----------------------------------------------------------------------- messages


def tamper(site: TrainingSite, kind: type, how: str, count: int = 3) -> None:
    """Lose, repeat or delay the next messages of a kind."""
    left = [count]
    original = site.simulation.send

    def send(node: Any, packet: Any) -> None:
        message = unpack(packet.topic, packet.payload).message
        if left[0] == 0 or not isinstance(message, kind):
            original(node, packet)
            return
        left[0] -= 1
        if how == "lost":
            return
        if how == "duplicated":
            original(node, packet)
        later_s = site.simulation.now_s + 0.3
        site.simulation.at(later_s, lambda: original(node, packet))

    site.simulation.send = send  # type: ignore[method-assign]


def lose_next(site: TrainingSite, kind: type) -> None:
    tamper(site, kind, "lost", 1)


MESSAGES = {
    "activations and gradients": (TrainFlow, None),
    "requests of copies": (TrainFetch, None),
    "copies": (TrainPart, None),
    "commands of a recovery": (TrainCommand, "worker3"),
    "replies of a recovery": (TrainReply, "worker3"),
    "copies of a recovery": (TrainPart, "worker3"),
}


@pytest.mark.parametrize("mode", [FRESH, CONSISTENT], ids=["fresh", "consistent"])
@pytest.mark.parametrize("how", ["lost", "duplicated", "reordered"])
@pytest.mark.parametrize("what", MESSAGES)
def test_training_ends_whatever_happens_to_messages(what, how, mode) -> None:
    kind, lost = MESSAGES[what]
    site = TrainingSite(3, mode, factory=FACTORY)
    site.run_until(23)
    tamper(site, kind, how)
    if lost is not None:
        crash(site, lost)
    check_end(site)
    assert site.central.driver.progress.failures == (0 if lost is None else 1)


def check_end(site: TrainingSite) -> None:
    site.run(120.0, step_s=0.5)
    results = site.central.driver.progress.results
    assert len(results) >= BATCHES - 2 * len(site.names)  # of some the report was lost
    assert all(np.isfinite(result.loss) for result in results.values())
    complete = site.central.driver.collector.complete
    assert complete is not None
    assert complete.version == BATCHES  # the final weights are those of the last batch
    if site.settings.restore == "consistent":
        assert_equal_layers(site.layers(), train_undisturbed())


@cache
def train_undisturbed() -> Mapping[int, Any]:
    site = TrainingSite(3, CONSISTENT, factory=FACTORY)
    site.run()
    return site.layers()


def test_copies_are_never_older_than_their_periods_allow() -> None:
    """And the time that copying takes: the batches in flight, and one period that is skipped."""
    site = TrainingSite(3, FRESH, factory=FACTORY)
    site.run_until(12)
    while site.done < BATCHES - 1:
        site.simulation.run(site.simulation.now_s + 0.01)
        version = site.central.member.runner.version
        if version < 3 * GLOBAL:
            continue
        complete = site.central.driver.collector.complete
        assert version - complete.version <= GLOBAL + 4
        for name in site.names:
            member = site.worker(name).member
            start, stop = member.runner.place.assignment.ranges[member.runner.place.index - 1]
            for layer in range(start, stop):
                stamps = [c.stamp for c in member.exchange.store.list_copies() if c.layer == layer]
                newest = max(stamps, default=Stamp(0, 0))
                assert member.runner.version - newest.version <= CHAIN + 4


def test_a_failing_operation_is_reported_and_its_node_is_left_out() -> None:
    site = TrainingSite(2, FRESH, factory=FACTORY)
    site.run_until(10)
    member = site.worker("worker1").member

    def fail(*arguments: object) -> None:
        raise MemoryError("no memory left")

    member._find_factory = lambda network: _Failing(FACTORY, fail)
    member.runner.stage.backward = fail  # type: ignore[method-assign]
    member.runner.stage.train_last = fail  # type: ignore[method-assign]
    site.run(60.0)
    assert "worker1" not in site.central.driver.arrangement.nodes
    assert any("no memory left" in entry.text for entry in site.central.driver.progress.timeline)


class _Failing:
    """A factory whose stages cannot be built."""

    def __init__(self, factory: DenseFactory, fail: Callable[..., Any]) -> None:
        self.layers, self.build, self.profile = factory.layers, fail, factory.profile


def test_a_central_node_without_workers_trains_alone_and_takes_them_when_they_come() -> None:
    site = TrainingSite(0, FRESH, factory=FACTORY)
    site.run_until(5)
    site.add_worker("worker1")
    site.run()
    assert "worker1" in site.central.driver.arrangement.nodes


# ---------------------------------------------------------------------- any delay


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    latency_s=st.floats(0, 0.1),
    jitter_s=st.floats(0, 0.1),
    loss=st.sampled_from([0.0, 0.0, 0.02]),
    reordering=st.floats(0, 0.5),
    duplication=st.floats(0, 0.3),
    slow=st.lists(st.floats(0.2, 8), min_size=3, max_size=3),
    killed=st.lists(st.tuples(st.integers(1, 3), st.floats(1, 8)), max_size=3),
    mode=st.sampled_from([FRESH, CONSISTENT]),
    seed=st.integers(0, 1000),
)
def test_no_deadlock_under_any_delay(
    latency_s, jitter_s, loss, reordering, duplication, slow, killed, mode, seed
) -> None:
    network = Network(
        latency_s=latency_s,
        jitter_s=jitter_s,
        loss=loss,
        reordering=reordering,
        duplication=duplication,
        reliable=not loss,
    )
    factors = {f"worker{k}": factor for k, factor in enumerate(slow, 1)}
    site = TrainingSite(3, mode, factory=FACTORY, network=network, slow=factors, seed=seed)
    for number, time_s in killed:
        name = f"worker{number}"
        site.simulation.at(time_s, lambda name=name: crash(site, name))
        site.simulation.at(time_s + 2, lambda name=name: site.simulation.start(site.node(name)))
    site.run(600.0, step_s=2.0)


def test_the_central_node_may_be_lost_at_any_time() -> None:
    site = TrainingSite(2, FRESH, factory=FACTORY)
    for batch in (15, 25, 40):
        site.run_until(batch)
        restart(site, CENTRAL)
    site.run(120.0)
    assert site.central.driver.collector.complete.version == BATCHES
