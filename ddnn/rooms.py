"""The rooms whose plans a site can run: one table, read by `ddnn plan`, the edge and the workers.

A room's modules are imported when a plan of it is made or read, so that a node installs only what
it runs. The names in a plan file select an entry of the table; they never name a module.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ddnn.core.plan import Plan
from ddnn.errors import ConfigError
from ddnn.machines.replan import Candidate
from ddnn.machines.room import Room


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a room is: `room` holds ROOM, `planner` a function make_plan."""

    room: str
    planner: str
    redundancies: tuple[str, ...]  # the values of --redundancy that it plans
    extra: str = ""  # what to install for it
    learns: bool = False  # whether planning needs the bundle's data set
    levels_speeds: bool = False  # whether a faster worker holds whole multiples of what others hold


_ENTRIES = {
    "coding": Entry(
        room="ddnn.coding.room",
        planner="ddnn.training.coded_plan",
        redundancies=("none", "replicate", "coded", "coded-sparse"),
        extra="coding",
        levels_speeds=True,
    ),
    "students": Entry(
        room="ddnn.students.room",
        planner="ddnn.training.student_plan",
        redundancies=("students",),
        extra="students",
        learns=True,
    ),
}


def register(name: str, entry: Entry) -> None:
    """Add a room."""
    _ENTRIES[name] = entry


def list_redundancies() -> tuple[str, ...]:
    """The values of --redundancy, of all rooms."""
    return tuple(word for entry in _ENTRIES.values() for word in entry.redundancies)


def needs_data(redundancy: str) -> bool:
    """Whether planning this redundancy learns from the data set that the bundle was trained on."""
    return any(entry.learns for entry in _ENTRIES.values() if redundancy in entry.redundancies)


def levels_speeds(redundancy: str) -> bool:
    """Whether a faster worker holds whole multiples of what others hold."""
    return any(e.levels_speeds for e in _ENTRIES.values() if redundancy in e.redundancies)


def find_room(name: str) -> Room:
    """The room that made a plan. ConfigError where it is unknown or not installed."""
    if name not in _ENTRIES:
        known = ", ".join(_ENTRIES)
        raise ConfigError(f"a plan of room {name!r} cannot be run; known rooms: {known}")
    room: Room = _load(_ENTRIES[name], _ENTRIES[name].room).ROOM
    return room


def replan(plan: Plan, candidates: Sequence[Candidate]) -> Plan | None:
    """The plan's pieces placed again by its room; None: they stay. See ddnn.machines.replan."""
    place = find_room(plan.room).replan
    return None if place is None else place(plan, candidates)


def find_planner(redundancy: str) -> Callable[..., Plan]:
    """The function make_plan(bundle, out, request, *, load_section, write_matrix, progress) of the
    room that plans this redundancy. ConfigError as find_room."""
    for entry in _ENTRIES.values():
        if redundancy in entry.redundancies:
            planner: Callable[..., Plan] = _load(entry, entry.planner).make_plan
            return planner
    known = ", ".join(list_redundancies())
    raise ConfigError(f"--redundancy {redundancy!r}; expected one of {known}")


def _load(entry: Entry, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module} needs {error.name}: pip install 'ddnn[{entry.extra}]'"
        ) from None
