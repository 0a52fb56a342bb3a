"""What the registry knows of trainings across devices."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_app.registry import TRAINING_S
from ddnn.protocol.machine import Received
from ddnn.protocol.messages import Status
from ddnn.protocol.topics import Kind, Topic
from ddnn.protocol.train_messages import TrainPlace
from tests.site_builder import make_training
from tests.unit.apps.registry_world import World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(monkeypatch)
    world.receive("central", Status("worker", 1, "online", "", "0.1"))
    world.events.clear()
    return world


def report(world: World, node: str = "central", **fields: Any) -> None:
    message = make_training(**fields)
    world.registry.observe(Received(Topic("home", Kind.TRAIN_STATE, node), message))


def list_batches(world: World) -> list[int]:
    return [view.state.batches for view in world.registry.list_trainings()]


def test_the_newest_state_is_kept_for_an_hour_also_after_its_node_has_stopped(
    world: World,
) -> None:
    report(world, batches=120)
    report(world, batches=121)
    world.receive("central", Status("worker", 1, "stopped", "", "0.1"))
    world.now_s += TRAINING_S
    assert list_batches(world) == [121]
    world.now_s += 1
    assert list_batches(world) == []


def test_an_unannounced_node_has_no_training(world: World) -> None:
    report(world, "nobody")
    assert list_batches(world) == []


@pytest.mark.parametrize(
    "nonsense",
    [
        {"batches": 401},
        {"copied": 121},
        {"places": [TrainPlace("central", 3, 3)]},
    ],
)
def test_a_training_that_contradicts_itself_is_not_kept_and_is_reported(
    world: World, nonsense: dict[str, Any]
) -> None:
    report(world)
    report(world, **nonsense)
    assert list_batches(world) == [120]
    assert [node for node, _ in world.events] == ["central"]
