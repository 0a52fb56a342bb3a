"""A slower device computes the same, later; and only what it may build."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ddnn.errors import ConfigError
from ddnn.training.stages.description import DescribedNetworks, NetworkDescription
from ddnn.training.stages.slow import SlowStages
from tests.dense_stage import DenseFactory, make_data

FACTORY = DenseFactory([6, 64, 64, 4])
FACTOR = 30.0


def test_a_slow_stage_gives_the_same_results() -> None:
    inputs, labels = make_data(6, 4)(0)
    plain, slow = FACTORY.build(0, 3, {}), SlowStages(FACTORY, 2.0).build(0, 3, {})
    assert plain.train_last(0, inputs, labels).loss == slow.train_last(0, inputs, labels).loss
    plain.apply()
    slow.apply()
    for name, array in plain.read_layer(1).items():
        assert np.array_equal(array, slow.read_layer(1)[name])


def test_a_slow_stage_takes_a_multiple_of_its_processor_time() -> None:
    class Busy:
        start, stop = 0, 1

        def discard(self) -> None: ...

        def apply(self) -> None:
            self.took_s = -time.process_time()
            while self.took_s + time.process_time() < 0.01:
                pass
            self.took_s += time.process_time()

    class BusyFactory:
        layers = 1

        def build(self, *arguments: object, **more: object) -> Busy:
            return busy

    busy = Busy()
    stage = SlowStages(BusyFactory(), FACTOR).build(0, 1, {})
    stage.apply()  # it may compile, which is not stretched
    started_s = time.perf_counter()
    stage.apply()
    assert time.perf_counter() - started_s >= FACTOR * busy.took_s


def test_a_slow_profile_is_a_multiple() -> None:
    inputs, labels = make_data(6, 4)(0)
    (first, *_), (slow, *_) = (
        factory.profile(inputs, labels) for factory in (FACTORY, SlowStages(FACTORY, 5.0))
    )
    assert slow.forward_s == 5 * first.forward_s
    assert slow.output_bytes == first.output_bytes


def test_a_message_cannot_call_any_function() -> None:
    description = NetworkDescription(model="os:listdir", input_shape=(4, 4, 3), classes=2)
    with pytest.raises(ConfigError, match="--train-model os:listdir"):
        DescribedNetworks().find(description.to_text())
    with pytest.raises(ConfigError, match="no description"):
        DescribedNetworks().find('{"model": 1}')


def test_a_described_network_is_that_of_the_central_node() -> None:
    description = NetworkDescription(model="mlp-5-4", input_shape=(4, 4, 3), classes=3, seed=2)
    networks = DescribedNetworks()
    found = networks.find(description.to_text())
    assert networks.find(description.to_text()) is found
    own = description.open().build(0, 3, {})
    other = found.build(1, 2, {})
    for name, array in own.read_layer(1).items():
        assert np.array_equal(array, other.read_layer(1)[name])
