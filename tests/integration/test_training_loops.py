"""Training over a real broker: the machines in their loops, with computing in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ddnn.adapters.mqtt import MqttTransport
from ddnn.pipeline.blobs import unpack_arrays
from ddnn.pipeline.central_node import TrainCentral
from ddnn.pipeline.settings import Checkpoint, Settings
from ddnn.pipeline.worker_node import TrainWorker
from ddnn.runtime.identity import Identity
from ddnn.runtime.loop import Loop
from ddnn.runtime.site_identity import Broker
from tests.dense_stage import DenseFactory, make_data, train_serially
from tests.integration.site import IN_TIME_S
from tests.simulation.training_site import assert_equal_layers

FACTORY = DenseFactory([6, 32, 32, 32, 4], rate=0.05, dropout=0.2, layer_s=0.001)
SETTINGS = Settings(
    80,
    micro_batches=4,
    chain_every=2,
    global_every=4,
    restore="consistent",
    least_workers=2,
    gather_s=0.3,
    repartition_at=(0, 0),
    choose_order=False,
)


class Site:
    def __init__(self, port: int) -> None:
        self.saved: list[Checkpoint] = []
        self.ended = threading.Event()
        self.data = make_data(6, 4)
        self._stack, self._port = ExitStack(), port
        self.workers = {
            name: self.start(
                Identity("home", name, "worker", "", ""),
                TrainWorker("home", name, "", lambda network: FACTORY, number),
            )
            for number, name in enumerate(("worker1", "worker2"), 1)
        }
        self.central = TrainCentral(
            "home", "edge", "run1", "dense", FACTORY, self.data, SETTINGS, save=self.save
        )
        self.start(Identity("home", "edge", "edge", "", ""), self.central)

    def save(self, checkpoint: Checkpoint) -> None:
        self.saved.append(checkpoint)
        if checkpoint.ended:
            self.ended.set()

    def start(self, identity: Identity, machine) -> Loop:
        transport = MqttTransport(identity.node, [Broker("127.0.0.1", self._port)])
        loop = Loop(identity, machine, transport)
        loop.start()
        self._stack.callback(loop.close)
        return loop

    def until(self, is_true: Callable[[], object]) -> None:
        until_s = time.monotonic() + IN_TIME_S
        while not is_true():
            assert time.monotonic() < until_s, self.central.driver.progress.timeline
            time.sleep(0.005)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def site(port: int) -> Iterator[Site]:
    site = Site(port)
    yield site
    site.close()


@pytest.mark.parametrize("stopped", [None, "worker2"])
def test_training_over_a_broker_is_serial_training_bit_for_bit(site: Site, stopped) -> None:
    """Also where a worker stops: the others go on from the latest snapshot."""
    if stopped is not None:
        site.until(lambda: len(site.saved) >= 2)
        site.workers[stopped].close()
    assert site.ended.wait(IN_TIME_S), site.central.driver.progress.timeline
    layers, _ = train_serially(FACTORY, site.data, SETTINGS.batches, SETTINGS.micro_batches)
    blobs = site.saved[-1].layers
    assert_equal_layers({n: unpack_arrays(blob) for n, blob in blobs.items()}, layers)
    assert len(site.central.driver.arrangement.nodes) == (3 if stopped is None else 2)
