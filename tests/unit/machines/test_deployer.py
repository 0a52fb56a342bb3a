"""The deployer of a roll-out whose connection breaks."""

from __future__ import annotations

import pytest

from ddnn.machines.deployer import LISTEN_S, RETURN_S, Deployer, State
from ddnn.protocol.machine import Connected, Disconnected, Now, Publish, Received
from ddnn.protocol.messages import Status
from ddnn.protocol.rollout_messages import BundleOrder, BundleState, RolloutPhase
from ddnn.protocol.topics import Kind, Topic

OLD, NEW = "ab12cd34", "cd34ef56"
NODES = ["cam1", "edge"]


class Driven:
    """A deployer whose nodes are online."""

    def __init__(self, before: BundleState | None = None) -> None:
        """before: the state of cam1 that the broker retains."""
        order = BundleOrder(NEW, "0" * 64, 1)
        self.deployer = Deployer("home", order, [b"x"], NODES, "edge", wait_s=30.0)
        self.now_s = 100.0
        self.give(Connected())
        for node in NODES:
            self.announce(node)
            self.report(node, OLD, OLD, "staged")
        if before is not None:
            self.give(Received(Topic("home", Kind.BUNDLE_STATE, "cam1"), before))
        self.wait(LISTEN_S)
        assert self.deployer.state is State.STAGING

    def give(self, event: object) -> None:
        self.deployer.handle(event, Now(self.now_s, 1e9 + self.now_s))

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.give(None)

    def announce(self, node: str) -> None:
        status = Status("edge" if node == "edge" else "device", 1, "online")
        self.give(Received(Topic("home", Kind.STATUS, node), status))

    def report(self, node: str, in_use: str, ordered: str, phase: RolloutPhase) -> None:
        state = BundleState(in_use, ordered, phase)
        self.give(Received(Topic("home", Kind.BUNDLE_STATE, node), state))

    def stage(self) -> None:
        for node in NODES:
            self.report(node, OLD, NEW, "staged")
        self.wait(2 * LISTEN_S)
        assert self.deployer.state is State.CHANGING


@pytest.fixture
def driven() -> Driven:
    return Driven()


def test_what_an_earlier_order_failed_for_does_not_count() -> None:
    """The user has made room on the disk, and gives the same order again."""
    driven = Driven(before=BundleState(OLD, NEW, "failed", reason="disk full"))
    assert driven.deployer.state is State.STAGING
    driven.stage()


def test_a_connection_that_breaks_confirms_nothing(driven: Driven) -> None:
    driven.stage()
    driven.give(Disconnected())
    driven.wait(1.0)
    assert driven.deployer.state is State.CHANGING
    driven.give(Connected())
    driven.wait(LISTEN_S)  # the broker has started again: nodes come back one after the other
    assert driven.deployer.state is State.CHANGING
    for node in NODES:
        driven.announce(node)
        driven.report(node, NEW, NEW, "staged")
    driven.wait(RETURN_S)
    assert driven.deployer.state is State.DONE


def test_without_a_connection_the_change_fails_at_its_deadline(driven: Driven) -> None:
    driven.stage()
    driven.give(Disconnected())
    driven.wait(60.0)
    assert driven.deployer.state is State.FAILED
    assert "no connection to the broker" in driven.deployer.reason


def test_after_a_reconnect_the_nodes_that_are_not_ready_are_waited_for(driven: Driven) -> None:
    """The lead edge is heard of first."""
    driven.report("cam1", OLD, NEW, "fetching")
    driven.report("edge", OLD, NEW, "staged")
    driven.give(Disconnected())
    driven.wait(5.0)
    driven.give(Connected())
    driven.announce("edge")
    driven.wait(0.1)
    driven.announce("cam1")
    driven.wait(RETURN_S)
    assert driven.deployer.state is State.STAGING
    driven.report("cam1", OLD, NEW, "staged")
    assert driven.deployer.state is State.CHANGING


def test_where_nobody_is_back_nothing_is_done(driven: Driven) -> None:
    driven.stage()
    driven.give(Disconnected())
    driven.wait(1.0)
    driven.give(Connected())
    driven.wait(RETURN_S + 1.0)
    assert driven.deployer.state is State.CHANGING
    driven.wait(60.0)
    assert "not reported to use it: edge" in driven.deployer.reason


@pytest.mark.parametrize("role", ["cloud", "store", "device"])
@pytest.mark.parametrize("first", ["status", "state"])
def test_a_cloud_of_another_name_that_cannot_use_the_bundle_keeps_all_where_they_are(
    role: str, first: str
) -> None:
    """A camera that the bundle does not name keeps nobody."""
    driven = Driven()
    status = Received(Topic("home", Kind.STATUS, "cloud1"), Status(role, 1, "online"))
    state = Received(
        Topic("home", Kind.BUNDLE_STATE, "cloud1"),
        BundleState(OLD, NEW, "failed", reason="no space"),
    )
    for event in (status, state) if first == "status" else (state, status):
        driven.give(event)
    for node in NODES:
        driven.report(node, OLD, NEW, "staged")
    driven.wait(2 * LISTEN_S)
    if role == "device":
        assert driven.deployer.state is State.CHANGING
    else:
        assert driven.deployer.state is State.FAILED
        assert driven.deployer.reason == "cloud1: no space"


def test_a_roll_out_is_cancelled_while_nodes_get_ready() -> None:
    """They stay with what they use; the retained order is that of the bundle before."""
    driven = Driven()
    now = Now(driven.now_s, 1e9 + driven.now_s)
    (published,) = driven.deployer.cancel(now)
    assert isinstance(published, Publish)
    assert published.topic.kind is Kind.BUNDLE_ORDER
    assert published.message.bundle == OLD
    assert (driven.deployer.state, driven.deployer.reason) == (State.FAILED, "cancelled")
    assert driven.deployer.cancel(now) == []


def test_a_change_that_has_begun_is_not_cancelled() -> None:
    driven = Driven()
    driven.stage()
    assert driven.deployer.cancel(Now(driven.now_s, 1e9)) == []
    assert driven.deployer.state is State.FAILED
    assert "all the same" in driven.deployer.reason
