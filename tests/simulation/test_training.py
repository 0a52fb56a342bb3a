"""Training over several nodes equals training in one place, and goes on when nodes are lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ddnn.core.device import DeviceProfile
from ddnn.pipeline.roster import Roster
from ddnn.pipeline.runner import StageTime
from ddnn.pipeline.settings import Settings
from ddnn.pipeline.stage import LayerProfile
from ddnn.protocol.train_messages import TrainOffer
from ddnn.runtime.simulated_network import Network
from tests.dense_stage import DenseFactory, train_serially
from tests.simulation.training_site import CENTRAL, TrainingSite, assert_equal_layers

DROPOUT = DenseFactory([6, 8, 8, 8, 8, 4], rate=0.05, dropout=0.2)
PERIODS = {"chain_every": 5, "global_every": 10}
FREQUENT = {"chain_every": 2, "global_every": 4}
SNAPSHOTS = Settings(80, restore="consistent", equal_capacities=True, **PERIODS)
STEPS = Settings(80, micro_batches=4, restore="consistent", **PERIODS)
FIXED_DELAY = Settings(80, delay=4, restore="consistent", **PERIODS)
LOSSY = Network(loss=0.01, duplication=0.05, reordering=0.2, reorder_s=0.02, reliable=False)


def train(workers: int, settings: Settings, **arguments) -> TrainingSite:
    site = TrainingSite(workers, settings, factory=DROPOUT, **arguments)
    site.run()
    return site


# -------------------------------------------------------------------- equality


def test_a_pipeline_of_one_stage_is_plain_training_bit_for_bit() -> None:
    site = train(0, Settings(30))
    layers, losses = train_serially(site.factory, site.data, 30)
    assert_equal_layers(site.layers(), layers)
    assert site.losses == losses


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_synchronous_mode_is_serial_training_bit_for_bit(workers: int) -> None:
    """With any number of stages: the same micro-batches, accumulated in the same order."""
    site = train(workers, Settings(40, micro_batches=4))
    layers, losses = train_serially(site.factory, site.data, 40, 4)
    assert_equal_layers(site.layers(), layers)
    assert site.losses == losses


@pytest.mark.parametrize("lost", [False, True])
def test_more_batches_in_flight_change_the_order_and_nothing_else(lost: bool) -> None:
    """Deep: five, three and one in flight. The synchronous mode gives the same bits."""
    site = TrainingSite(2, replace(STEPS, deep=True), factory=DROPOUT)
    site.run_until(30)
    workers = [site.worker(name).member.runner.place for name in site.names]
    assert sorted(place.depth for place in (*workers, site.central.member.runner.place)) == [
        1,
        3,
        5,
    ]
    if lost:
        site.simulation.crash(site.node("worker1"))
    site.run()
    layers, _ = train_serially(site.factory, site.data, STEPS.batches, STEPS.micro_batches)
    assert_equal_layers(site.layers(), layers)


def test_the_gradients_of_micro_batches_are_those_of_the_whole_batch() -> None:
    factory = DenseFactory([6, 8, 8, 4])
    site = TrainingSite(2, Settings(4, micro_batches=4), factory=factory)
    site.run()
    parts = [site.data(n) for n in range(4)]
    whole = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    stage = factory.build(0, 3, {})
    stage.train_last(0, *whole)
    stage.apply()
    for n, layer in site.layers().items():
        np.testing.assert_allclose(
            layer["kernel"], stage.read_layer(n)["kernel"], rtol=1e-4, atol=1e-6
        )


def test_the_asynchronous_mode_does_not_depend_on_delays_or_speeds() -> None:
    """Strict 1F1B: which weights a batch uses follows from the cut alone."""
    settings = Settings(60, choose_order=False, repartition_at=(0, 0))
    a = train(3, settings, network=Network(latency_s=0.0001))
    b = train(3, settings, network=Network(latency_s=0.03, jitter_s=0.02), seed=11)
    assert a.central.driver.arrangement.ranges == b.central.driver.arrangement.ranges
    assert_equal_layers(a.layers(), b.layers())
    assert a.losses == b.losses


def test_with_a_fixed_delay_the_result_does_not_depend_on_the_cut() -> None:
    settings = Settings(40, delay=4)
    sites = [train(workers, settings) for workers in (0, 1, 3)]
    for site in sites[1:]:
        assert_equal_layers(site.layers(), sites[0].layers())


def test_aggregation_changes_the_weights_and_training_still_learns() -> None:
    plain, mean = (train(3, Settings(120, aggregate_every=every)) for every in (0, 5))
    assert plain.losses != mean.losses
    for site in (plain, mean):
        assert np.mean(site.losses[-20:]) < 0.96 * np.mean(site.losses[:20])


# ---------------------------------------------- consistent restores: bit for bit


@pytest.mark.parametrize("settings", [STEPS, FIXED_DELAY], ids=["synchronous", "fixed delay"])
@pytest.mark.parametrize(
    "lost", [["worker1"], ["worker2", "worker3"], ["worker1", "worker2", "worker3"]], ids=len
)
def test_a_consistent_restore_equals_the_run_without_faults(settings, lost) -> None:
    """Also over other cuts: the nodes that are left take the layers of the lost ones."""
    undisturbed = train(3, settings)
    site = TrainingSite(3, settings, factory=DROPOUT)
    site.run_until(37)
    for name in lost:
        site.simulation.crash(site.node(name))
    site.run()
    assert site.central.driver.term > 1
    assert_equal_layers(site.layers(), undisturbed.layers())
    assert site.losses == undisturbed.losses


@pytest.mark.parametrize("lost", [["worker2"], ["worker1", "worker2"]], ids=len)
@pytest.mark.parametrize("batch", range(26, 34))
def test_a_consistent_restore_uses_one_snapshot_whenever_nodes_are_lost(
    batch: int, lost: list[str]
) -> None:
    """Also where a node has newer copies of the layers that it fetches."""
    settings = Settings(
        48, micro_batches=4, restore="consistent", equal_capacities=True, **FREQUENT
    )
    site = TrainingSite(3, settings, factory=DROPOUT)
    site.run_until(batch)
    for name in lost:
        site.simulation.crash(site.node(name))
    site.run()
    layers, losses = train_serially(site.factory, site.data, 48, 4)
    assert_equal_layers(site.layers(), layers)
    assert site.losses == losses


def train_with_a_restart(settings: Settings) -> TrainingSite:
    """Worker1 dies after 37 batches and starts again."""
    site = TrainingSite(2, settings, factory=DROPOUT)
    site.run_until(37)
    site.simulation.crash(site.node("worker1"))
    site.simulation.start(site.node("worker1"))
    site.run()
    assert site.central.driver.term > 1
    return site


def test_a_consistent_restore_of_the_asynchronous_mode_over_the_same_cut() -> None:
    undisturbed = train(2, SNAPSHOTS)
    site = train_with_a_restart(SNAPSHOTS)
    assert len(site.central.driver.arrangement.nodes) == 3
    assert_equal_layers(site.layers(), undisturbed.layers())
    assert site.losses == undisturbed.losses


@pytest.mark.parametrize("settings", [STEPS, FIXED_DELAY], ids=["synchronous", "fixed delay"])
def test_the_central_node_goes_on_from_its_checkpoint_bit_for_bit(settings) -> None:
    undisturbed = train(2, settings)
    site = TrainingSite(2, settings, factory=DROPOUT)
    site.run_until(60)
    site.simulation.crash(site.node(CENTRAL))
    site.simulation.run(site.simulation.now_s + 3)
    lost = [entry for _, name, entry in site.simulation.journal.logs if "is lost" in entry.message]
    assert len(lost) == 2  # a clear error at each worker
    site.simulation.start(site.node(CENTRAL))
    site.run()
    assert_equal_layers(site.layers(), undisturbed.layers())
    later = [loss for batch, loss in sorted(site.losses_by_batch.items())]
    assert later == undisturbed.losses[-len(later) :]


def test_lost_repeated_and_reordered_messages_change_no_bit() -> None:
    settings = Settings(60, choose_order=False, repartition_at=(0, 0), **PERIODS)
    undisturbed = train(2, settings)
    site = train(2, settings, network=LOSSY)
    assert site.central.driver.term == 1
    assert_equal_layers(site.layers(), undisturbed.layers())
    assert site.losses == undisturbed.losses[: len(site.losses)]


# ------------------------------------------------------- joining, leaving, speed


def test_a_worker_that_announces_it_leaves_without_a_batch_being_lost() -> None:
    undisturbed = train(2, FIXED_DELAY)
    site = TrainingSite(2, FIXED_DELAY, factory=DROPOUT)
    site.run_until(25)
    site.leave("worker2")
    site.run()
    assert site.worker("worker2").is_released
    assert "worker2" not in site.central.driver.arrangement.nodes
    assert site.central.driver.progress.failures == 0
    assert_equal_layers(site.layers(), undisturbed.layers())


def test_a_worker_that_comes_later_takes_layers() -> None:
    undisturbed = train(1, FIXED_DELAY)
    site = TrainingSite(1, FIXED_DELAY, factory=DROPOUT)
    site.run_until(15)
    site.add_worker("worker9")
    site.run()
    assert "worker9" in site.central.driver.arrangement.nodes
    assert_equal_layers(site.layers(), undisturbed.layers())


def test_the_pipeline_is_cut_anew_when_a_device_slows_down() -> None:
    site = TrainingSite(2, Settings(200, repartition_at=(10, 20), **PERIODS))
    site.run_until(30)
    before = dict(zip(*layout(site), strict=True))
    site.slow["worker1"] = 8.0
    site.run()
    after = dict(zip(*layout(site), strict=True))
    assert width(after.get("worker1", (0, 0))) < width(before["worker1"])
    assert site.central.driver.progress.failures == 0


def test_capacities_are_measured_and_noise_moves_nothing() -> None:
    site = TrainingSite(2, Settings(150, repartition_at=(10, 10)), slow={"worker1": 4.0})
    site.run()
    roster = site.central.driver.roster
    assert roster.get("worker2").capacity == pytest.approx(1.0, rel=0.05)
    if "worker1" in site.central.driver.arrangement.nodes:
        assert roster.get("worker1").capacity == pytest.approx(4.0, rel=0.05)
    assert site.central.driver.term <= 3


def test_announced_speeds_shape_the_first_cut() -> None:
    profiles = {
        name: DeviceProfile(name, speed)
        for name, speed in ((CENTRAL, 4e9), ("worker1", 4e9), ("worker2", 1e9))
    }
    site = TrainingSite(2, Settings(20), profiles=profiles, slow={"worker2": 4.0})
    site.run_until(5)
    widths = {name: width(held) for name, held in zip(*layout(site), strict=True)}
    assert widths.get("worker2", 0) < widths["worker1"]


def test_memory_limits_shape_the_cut() -> None:
    profiles = {"worker1": DeviceProfile("worker1", 1e9, memory_bytes=4000)}
    site = TrainingSite(1, Settings(20), profiles=profiles)
    site.run()
    nodes, ranges = layout(site)
    held = dict(zip(nodes, ranges, strict=True)).get("worker1", (0, 0))
    assert width(held) <= 1


@pytest.mark.parametrize("deep", [False, True])
def test_memory_has_to_hold_the_copies_of_others_and_the_batches_in_flight(deep: bool) -> None:
    profiles = {name: DeviceProfile(name, 1e9, memory_bytes=100_000) for name in ("a", CENTRAL)}
    roster = Roster(CENTRAL, "net", profiles[CENTRAL])
    roster.take_offer("a", TrainOffer("net", 1, False, profiles["a"]))
    layers = [LayerProfile(0.1, 0.1, 500, 1000)] * 10
    devices = roster.describe([CENTRAL, "a"], layers, equal=True, deep=deep)
    assert devices.memory is not None
    output_bytes, state_bytes = layers[0].output_bytes, layers[0].state_bytes
    assert devices.memory.limits_bytes == [100_000 - 3 * 10 * state_bytes, 100_000]
    in_flight = 3 if deep else 2
    assert devices.memory.layer_bytes[1][0] == 6 * state_bytes + in_flight * output_bytes


def test_a_hundred_devices() -> None:
    sizes = [6, *[4] * 104, 4]
    settings = Settings(30, choose_order=False)
    site = TrainingSite(99, settings, factory=DenseFactory(sizes, layer_s=0.002))
    site.run()
    assert len(site.central.driver.arrangement.nodes) == 100
    assert len(site.losses) == 30


def layout(site: TrainingSite):
    arrangement = site.central.driver.arrangement
    return arrangement.nodes, arrangement.ranges


def width(held: tuple[int, int]) -> int:
    return held[1] - held[0]


def test_the_published_state_says_what_was_done_and_by_whom() -> None:
    site = TrainingSite(2, Settings(60, **PERIODS), slow={"worker2": 3.0})
    site.run_until(40)
    site.simulation.crash(site.node("worker1"))
    site.run()
    view = site.central.view
    assert (view.state, view.batches, view.end) == ("ENDED", 60, 60)
    assert view.places[0].node == CENTRAL
    assert [place.stop for place in view.places] == [
        *(place.start for place in view.places[1:]),
        site.factory.layers,
    ]
    assert all(0 <= place.idle_share < 1 and place.batch_s > 0 for place in view.places)
    assert view.failures == 1
    assert view.copied <= view.version == 60
    assert view.loss == pytest.approx(np.mean(site.losses[-20:]))
    kinds = [entry.kind for entry in view.timeline]
    last = len(kinds) - kinds[::-1].index("layout") - 1
    assert kinds[last:] == ["layout", "held", "start", "advance", "end"]
    assert any(entry.text == "worker1 is lost" for entry in view.timeline)


def test_the_loss_of_a_node_without_layers_is_noted_and_stops_nothing() -> None:
    site = TrainingSite(2, Settings(60, repartition_at=(10, 10)), slow={"worker2": 1000.0})
    site.run_until(40)
    assert "worker2" not in layout(site)[0]
    term = site.central.driver.term
    site.simulation.crash(site.node("worker2"))
    site.run()
    assert (site.central.driver.term, site.central.driver.progress.failures) == (term, 0)
    texts = [entry.text for entry in site.central.driver.progress.timeline]
    assert "worker2 is lost; it had no layers" in texts


def test_the_first_operation_which_compiles_does_not_count() -> None:
    time = StageTime()
    assert time.median_s == 0.0
    time.take(9.0)
    assert time.median_s == 9.0
    for seconds in (0.2, 0.1, 0.3):
        time.take(seconds)
    assert time.median_s == 0.2


def test_the_means_of_versions_are_the_same_after_a_consistent_restore() -> None:
    settings = replace(SNAPSHOTS, aggregate_every=7)
    undisturbed = train(2, settings)
    site = train_with_a_restart(settings)
    assert_equal_layers(site.layers(), undisturbed.layers())


def test_a_node_that_starts_again_is_measured_again() -> None:
    site = TrainingSite(2, Settings(60))
    site.run_until(30)
    node = site.central.driver.roster.get("worker1")
    assert node.capacity is not None
    node.capacity = 50.0
    site.simulation.crash(site.node("worker1"))
    site.simulation.start(site.node("worker1"))
    site.run()
    assert node.capacity is None or node.capacity < 25.0
