"""Each role's machine may do what it does, and nothing of another node's.

A site with access lists gives the answers of a site without; every topic that a machine publishes
is allowed to it, and to no other node but those that the protocol means.
"""

from __future__ import annotations

import numpy as np
import pytest

from ddnn.exits.device_node import DeviceNode
from ddnn.exits.edge_node import EdgeNode
from ddnn.machines.clock import SiteClock
from ddnn.machines.composite import CompositeMachine
from ddnn.pipeline.settings import Settings
from ddnn.protocol.access import ROLES, TABLE, Role, list_filters, matches
from ddnn.protocol.messages import Thresholds
from ddnn.protocol.topics import EVERYWHERE, Kind, Topic, parse
from ddnn.runtime.identity import Identity
from ddnn.runtime.simulation import Simulation
from tests.simulation.access_lists import AccessLists, list_roles
from tests.simulation.offload_checks import make_site
from tests.simulation.offload_site import JITTER, STEADY
from tests.simulation.scenario import TIMING, build_scenario
from tests.simulation.small_hierarchy import BUNDLE, make_hierarchy, make_manifest, make_sections
from tests.simulation.training_site import TrainingSite

SHARED = {Kind.ESCALATE: {"edge"}, Kind.VERDICT: {"cloud"}, Kind.ACK: {"cloud", "store"}}
TO_OTHERS = {
    Kind.TIME_REPLY,
    Kind.TRAIN_COMMAND,
    Kind.TRAIN_REPLY,
    Kind.TRAIN_REPORT,
    Kind.TRAIN_FLOW,
    Kind.TRAIN_FETCH,
    Kind.TRAIN_PART,
}
"""Kinds whose topic names the receiver: any node that trains may write them to any other."""


def summarize(simulation: Simulation) -> dict:
    return {
        key: (a.label, a.exit, a.members, a.quality, a.probabilities)
        for key, a in simulation.store.items()
    }


def assert_least_rights(lists: AccessLists) -> None:
    """Nothing that was written was refused, and no other node may write it."""
    assert lists.refused == set()
    for name, topic in lists.written:
        kind = parse(topic).kind
        if kind not in TO_OTHERS | SHARED.keys():
            assert parse(topic).node == name.partition("/")[2], (name, topic)
            assert lists.find_writers(topic) == {name}, topic


@pytest.mark.parametrize(("letter", "sites"), [("a", 1), ("e", 1), ("f", 1), ("e", 2)])
def test_a_hierarchy_with_access_lists_answers_as_one_without(letter: str, sites: int) -> None:
    manifest = make_manifest(make_hierarchy(letter, 4))
    sections = make_sections(manifest)
    names = ("home", "barn")[:sites]
    options = {"network": STEADY, "samples": 20, "sites": names}
    free = build_scenario(manifest, sections, **options)
    free.run(sites=names)
    limited = build_scenario(manifest, sections, **options)
    simulation = limited.simulation
    lists = AccessLists(simulation, list_roles(simulation))
    for name in simulation._nodes:  # the first connection was without limits
        simulation.disconnect(name)
    simulation.run(0.2)
    for name in simulation._nodes:
        simulation.connect(name)
    limited.run(sites=names)
    assert summarize(simulation) == summarize(free.simulation)
    assert len(simulation.store) == 20 * sites
    assert_least_rights(lists)


def test_a_site_that_offloads_with_access_lists_is_as_one_without() -> None:
    free, limited = (make_site("mds").make_run(samples=20, network=JITTER) for _ in range(2))
    free.scenario.run()
    simulation = limited.simulation
    lists = AccessLists(simulation, list_roles(simulation))
    limited.scenario.run()
    assert {n: a.label for n, a in limited.store.items()} == {
        n: a.label for n, a in free.store.items()
    }
    assert limited.offload_state.combined == free.offload_state.combined > 0
    assert_least_rights(lists)
    assert {Kind.TASK, Kind.RESULT, Kind.ASSIGN, Kind.OFFER, Kind.OFFLOAD} <= lists.list_kinds()


def test_training_with_access_lists_is_as_training_without() -> None:
    free, limited = (TrainingSite(2, Settings(10, micro_batches=2)) for _ in range(2))
    free.run()
    roles = {"home/edge": ("central",), "home/worker1": ("trainer",), "home/worker2": ("trainer",)}
    lists = AccessLists(limited.simulation, roles)
    limited.run()
    assert limited.losses == free.losses
    assert_least_rights(lists)
    assert {Kind.TRAIN_COMMAND, Kind.TRAIN_REPLY, Kind.TRAIN_FLOW} <= lists.list_kinds()


def test_time_and_thresholds_pass_the_access_lists() -> None:
    manifest = make_manifest(make_hierarchy("e", 2))
    simulation = Simulation(np.random.default_rng(4), STEADY)
    clocks: dict[str, SiteClock] = {}

    def make_device(node: str) -> CompositeMachine:
        clocks[node] = SiteClock("home", node)
        return CompositeMachine(DeviceNode("home", node, BUNDLE, manifest, TIMING), clocks[node])

    simulation.add(
        Identity("home", "edge", "edge", BUNDLE, ""),
        lambda pending: EdgeNode("home", "edge", BUNDLE, manifest, TIMING, pending),
    )
    for node in ("cam1", "cam2"):
        simulation.add(
            Identity("home", node, "device", BUNDLE, ""),
            lambda pending, node=node: make_device(node),
            wall_offset_s=3.0,
        )
    lists = AccessLists(simulation, list_roles(simulation, {"home/page": ("dashboard",)}))
    simulation.run(2.0)
    assert {node: round(clock.gauges["clock_skew_s"]) for node, clock in clocks.items()} == {
        "cam1": 3,
        "cam2": 3,
    }
    command = Topic("home", Kind.THRESHOLDS, "edge")
    assert lists.find_writers(str(command)) == {"home/page"}
    simulation.publish(command, Thresholds(BUNDLE, {"local": 0.25}, 3))
    simulation.run(3.0)
    edge = simulation.machine("home/edge")
    assert edge is not None
    assert edge.gauges["threshold_revision"] == 3
    assert_least_rights(lists)


def test_a_device_is_told_of_no_wildcard_over_nodes() -> None:
    nodes = {"device": ["cam1", "cam2"], "edge": ["edge"], "cloud": ["cloud"]}
    found = list_filters(["device"], "home", "cam1", nodes)
    probe, parts = "ddnn/v1/home/node/cam1/probe/+", "ddnn/v1/home/bundle/+/part"
    wild = {f for f in (*found.write, *found.read) if "+" in f or "#" in f}
    assert wild == {probe, parts}
    assert parts not in found.write
    bridged = list_filters(["device"], "home", "cam1", nodes, is_bridged=True)
    assert {*bridged.read} - {*found.read} == {f"ddnn/v1/{EVERYWHERE}/node/+/status"}
    assert bridged.write == found.write


@pytest.mark.parametrize("role", [role for role in ROLES if role not in ("bridge", "observer")])
def test_a_node_may_not_speak_for_another(role) -> None:
    """In its name, or at another site; presence above all, which all roles announce."""
    nodes = {other: ["cam1", "cam2"] for other in ROLES}
    found = list_filters([role], "home", "cam1", nodes).write
    for kind in (Kind.STATUS, Kind.STATS, Kind.SCORES, Kind.ANSWER, Kind.RESULT, Kind.ASSIGN):
        others = (Topic("home", kind, "cam2"), Topic("barn", kind, "cam1"))
        assert not [t for t in others if any(matches(f, str(t)) for f in found)]


def test_an_observer_writes_nothing_that_a_machine_reads() -> None:
    assert list_filters(["observer"], "home", "me", {}).write == ("ddnn/v1/home/node/me/probe/+",)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_each_kind_has_a_role_that_writes_it_and_one_that_reads_it(kind: Kind) -> None:
    topic = str(Topic("home", kind, "me" if kind.value.per_node else ""))
    found = [list_filters([role], "home", "me") for role in TABLE if role != "bridge"]
    assert any(matches(text, topic) for filters in found for text in filters.write)
    assert any(matches(text, topic) for filters in found for text in filters.read)


def test_a_collector_asks_its_edges_for_the_time() -> None:
    """Its orders are in the site's time."""
    nodes: dict[Role, list[str]] = {"collector": ["laptop"], "edge": ["edge"], "device": ["cam1"]}
    own = list_filters(["collector"], "home", "laptop", nodes)
    edge = list_filters(["edge"], "home", "edge", nodes)
    request, reply = (
        str(Topic("home", kind, "laptop")) for kind in (Kind.TIME_REQUEST, Kind.TIME_REPLY)
    )
    assert request in own.write
    assert reply in own.read
    assert request in edge.read
    assert reply in edge.write
