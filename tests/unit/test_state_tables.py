"""Every machine's table of transitions: what is in it happens, anything else raises.

The loop's table is walked where the loop is tested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import product
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from ddnn.errors import LocalProtocolError
from ddnn.exits import device_exit, fusion_node, probation, sample
from ddnn.machines import (
    attendance,
    collect,
    deployer,
    pace,
    picture_collector,
    recorder,
    rollout,
    versions,
)
from ddnn.machines.membership import MISSES_UNTIL_SUSPECT
from ddnn.machines.workers import Health, WorkerPool
from ddnn.pipeline import driver_states, member
from ddnn.pipeline.arranger import Arranger
from ddnn.protocol.messages import Status, WorkerOffer
from ddnn.protocol.rollout_messages import BundleOrder
from tests.dense_stage import DenseFactory

ORDER = BundleOrder("ab12cd34", "0" * 64, 0)


class Table(NamedTuple):
    """A module with a table, and one of its objects in a given state."""

    module: ModuleType
    states: Any
    make: Callable[[Any], Any]
    attribute: str = "state"


def collect_job(phase: collect.Phase) -> Any:
    job: Any = collect._Job({}, set(), lambda parts: True, 1.0, False)
    job.phase = phase
    return job


def member_in(state: member.State) -> Any:
    one = member.Member("home", "worker1", lambda network: DenseFactory([2, 2]), 1)
    one.state = state
    return one


def driver_in(state: driver_states.State) -> Any:
    one: Any = object.__new__(Arranger)
    one.state, one.run = state, "run1"
    return one


def recorder_in(state: recorder.State) -> Any:
    one = recorder.Recorder("home", "cam1", 0.1, recorder.Permission(True))
    one.state = state
    return one


def picture_collector_in(state: picture_collector.State) -> Any:
    one = picture_collector.PictureCollector("home", "s1", lambda picture: None)
    one.state = state
    return one


def pace_in(state: pace.State) -> Any:
    control = pace.PaceControl(0.7)
    control.state = state
    return control


def probation_in(state: probation.State) -> Any:
    one = probation.Probation("home", "b1", "edge", None, 60.0)
    one.state = state
    return one


def deployer_in(state: deployer.State) -> Any:
    one = deployer.Deployer("home", ORDER, [], ["cam1", "edge"], "edge", wait_s=1.0)
    one.state = state
    return one


TABLES = {
    "a bundle that is made ready": Table(
        rollout, rollout.Phase, lambda phase: rollout._Candidate(ORDER, phase), "phase"
    ),
    "the first minutes of a bundle": Table(probation, probation.State, probation_in),
    "a roll-out": Table(deployer, deployer.State, deployer_in),
    "the pace of a site": Table(pace, pace.State, pace_in),
    "a member of a training": Table(member, member.State, member_in),
    "a training": Table(driver_states, driver_states.State, driver_in),
    "a recording at its device": Table(recorder, recorder.State, recorder_in),
    "a collector of pictures": Table(
        picture_collector, picture_collector.State, picture_collector_in
    ),
    "a job of a collector": Table(collect, collect.Phase, collect_job, "phase"),
    "a version": Table(
        versions, versions.Phase, lambda phase: versions._Version("v1", None, phase), "phase"
    ),
    "a worker's attendance": Table(
        attendance,
        attendance.Phase,
        lambda phase: attendance._Worker(phase, 0.0),
        "phase",
    ),
    "a sample at the lead edge": Table(
        sample, sample.State, lambda state: sample.Sample(5, 0.0, 0.0, 1.0, state)
    ),
    "a fusion": Table(
        fusion_node, fusion_node.State, lambda state: fusion_node.Fusion(state=state)
    ),
    "a sample at its device": Table(
        device_exit, device_exit.State, lambda state: device_exit._Sample(0.0, 0.0, None, state)
    ),
}
ROWS = [
    pytest.param(table, state, signal, id=f"{name}: {state.name} {signal.name}")
    for name, table in TABLES.items()
    for state, signal in product(table.states, table.module.Signal)
]


@pytest.mark.parametrize(("table", "state", "signal"), ROWS)
def test_a_transition_happens_if_it_is_in_the_table_and_raises_otherwise(
    table: Table, state: Any, signal: Any
) -> None:
    following = read_transitions(table).get((state, signal))
    machine = table.make(state)
    if following is not None:
        machine.move(signal)
        assert getattr(machine, table.attribute) is following
    else:
        with pytest.raises(LocalProtocolError, match=f"{signal.name} .* {state.name}"):
            machine.move(signal)
        assert getattr(machine, table.attribute) is state


@pytest.mark.parametrize("name", TABLES)
def test_the_table_in_the_documentation_is_the_table_in_use(name: str) -> None:
    rows = re.findall(
        r"^    ([A-Z_]+) +([A-Z_]+) +([A-Z_]+)\b", TABLES[name].module.__doc__ or "", re.M
    )
    documented = {(state, signal): following for state, signal, following in rows}
    assert len(documented) == len(rows)
    assert documented == {
        (state.name, signal.name): following.name
        for (state, signal), following in read_transitions(TABLES[name]).items()
    }


@pytest.mark.parametrize("name", TABLES)
def test_every_state_and_every_signal_is_in_use(name: str) -> None:
    table = TABLES[name]
    rows = read_transitions(table)
    used = {state for state, _ in rows} | set(rows.values())
    assert used == set(table.states)
    assert {signal for _, signal in rows} == set(table.module.Signal)


def read_transitions(table: Table) -> Mapping[tuple[Any, Any], Any]:
    rows: Mapping[tuple[Any, Any], Any] = table.module.TRANSITIONS
    return rows


# -------------------------------------------------------- the health of a worker


def make_pool(*pieces: int) -> WorkerPool:
    """A pool whose planned worker is online and holds these pieces."""
    pool = WorkerPool("p1", {"w1": (0,)})
    pool.take_offer("w1", WorkerOffer({"p1": list(pieces)}))
    pool.take_status("w1", Status("worker", 1, "online"), 0.0)
    return pool


def test_a_worker_that_holds_its_piece_is_live_until_it_is_lost() -> None:
    pool = make_pool(0)
    assert pool.health("w1") is Health.LIVE
    pool.take_status("w1", Status("worker", 1, "lost"), 1.0)
    assert pool.health("w1") is Health.LOST
    pool.take_status("w1", Status("worker", 2, "online"), 2.0)
    assert pool.health("w1") is Health.LIVE
    assert pool.health("unheard-of") is Health.LOST


def test_a_worker_without_its_piece_is_loading() -> None:
    pool = make_pool()
    assert pool.health("w1") is Health.LOADING
    pool.take_offer("w1", WorkerOffer({"p1": [0]}))
    assert pool.health("w1") is Health.LIVE


def test_a_worker_is_stalled_until_it_reports_in_time() -> None:
    pool = make_pool(0)
    for n in range(MISSES_UNTIL_SUSPECT):
        assert pool.health("w1") is Health.LIVE
        pool.note_misses(["w1"], float(n))
    assert pool.health("w1") is Health.STALLED
    pool.note_report("w1")
    assert pool.health("w1") is Health.LIVE


def test_a_worker_is_faulty_until_its_next_session() -> None:
    pool = make_pool(0)
    pool.quarantine(["w1"])
    assert pool.health("w1") is Health.FAULTY
    pool.note_report("w1")
    pool.take_status("w1", Status("worker", 1, "lost"), 1.0)
    assert pool.health("w1") is Health.FAULTY
    pool.take_status("w1", Status("worker", 2, "online"), 2.0)
    assert pool.health("w1") is Health.LIVE
