"""This node as a worker: it computes pieces of the plan that an edge follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ddnn.adapters.matrices import load_section
from ddnn.core.plan import PieceKey, Plan
from ddnn.core.section import Section
from ddnn.machines.worker import WorkerNode
from ddnn.protocol.machine import SectionName
from ddnn.rooms import find_room
from ddnn.runtime.plans import DIRECTORY, PLAN, PlanDirectory
from ddnn.runtime.profile import measure_profile
from ddnn.runtime.settings import NodeSettings


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker's machine, the functions that read its plans and pieces, and a one-line summary."""

    machine: WorkerNode
    load: Callable[[SectionName], Section]
    find_plan: Callable[[str], Plan | None]
    summary: str
    keys: list[PieceKey] = field(default_factory=list)  # its own pieces, or as a spare one

    def check(self) -> None:
        """Raise ConfigError where a piece cannot be loaded and run."""
        for key in self.keys:
            section = self.load(key)
            section(section.example())


def open_worker(settings: NodeSettings, plan_path: str, bundle: str) -> Worker:
    """Open the plan in `plan_path`, by default in the bundle, and make the worker's machine.

    Without a plan in the bundle the worker announces its profile, which `ddnn plan` reads, and
    begins to work when a plan is copied there.
    ConfigError where the plan cannot be used, or is for another bundle.
    """
    path = Path(plan_path) if plan_path else Path(settings.bundle) / DIRECTORY
    directory = PlanDirectory(path, bundle, load_section, find_room)
    profile = measure_profile(settings.node)
    if not plan_path and not (path / PLAN).exists():
        machine = WorkerNode(settings.site, settings.node, None, profile)
        summary = (
            f"no plan in {path} yet: it announces that it lends, and works once there is one; run "
            "`ddnn plan --workers announced`, copy the plan here"
        )
        return Worker(machine, directory.load, directory.find, summary)
    plan = directory.read()
    machine = WorkerNode(settings.site, settings.node, plan, profile)
    pieces = plan.placement.get(settings.node, ())
    own = ", ".join(f"piece {piece}" for piece in pieces) or "a spare"
    summary = f"lends by plan {plan.id} to {plan.group}: {own}"
    return Worker(
        machine, directory.load, directory.find, summary, [plan.key(p) for p in pieces or (0,)]
    )
