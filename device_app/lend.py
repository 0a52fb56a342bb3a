"""Lending this node's computing power to the layer that an edge shares."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddnn.adapters.matrices import load_section
from ddnn.coding.deployment import shard_name
from ddnn.core.section import Array, Arrays, Section
from ddnn.errors import ConfigError
from ddnn.machines.worker import WorkerNode, piece_of, section_of
from ddnn.protocol.machine import Event
from ddnn.runtime.deployment import DIRECTORY, PLAN, OtherPlans, read_plan
from ddnn.runtime.settings import NodeSettings

MEASURED_SIDE = 384  # of the matrices by which the speed is measured: 0.1 GFLOP
MEASURED_TIMES = 3


@dataclass(frozen=True, slots=True)
class Lending:
    """The machine, what loads the shards that it is given, and what watches for other plans."""

    machine: WorkerNode
    load: Callable[[str], Section]
    says: str
    observe: Callable[[Event], None] | None = None
    pieces: tuple[int, ...] = ()  # that it would compute: its own, or as a spare any

    def check(self) -> None:
        """Raise ConfigError where a shard cannot be loaded and run."""
        for piece in self.pieces:
            section = self.load(section_of(piece))
            section(getattr(section, "example", dict)())


def open_lending(settings: NodeSettings, plan: str, bundle: str) -> Lending:
    """plan: its directory, by default in the bundle. ConfigError where it is for another bundle.

    Without a plan in the bundle the node announces what it can lend, for `ddnn plan` to hear.
    """
    path = Path(plan) if plan else Path(settings.bundle) / DIRECTORY
    speed, free = flops_per_s(), free_bytes()
    if not plan and not (path / PLAN).exists():
        return Lending(
            WorkerNode(settings.site, settings.node, "", settings.node, 0, (), speed, free),
            _no_plan,
            f"no plan in {path}: it only announces that it lends; run "
            "`ddnn plan --workers announced`, copy the plan here, start again",
        )
    planned = read_plan(path, bundle)
    deployment = planned.deployment
    machine = WorkerNode(
        settings.site,
        settings.node,
        planned.id,
        deployment.section,
        len(deployment.generator),
        deployment.input_shape,
        speed,
        free,
    )

    def load(section: str) -> Section:
        piece = piece_of(section)
        name = section if piece is None else shard_name(piece)
        return Shard(planned.load(load_section, name)[name], deployment.input_shape)

    own = ", ".join(map(shard_name, deployment.workers.get(settings.node, ())))
    says = f"lends by plan {planned.id} to {deployment.section}: {own or 'a spare'}"
    pieces = deployment.workers.get(settings.node, (0,))
    return Lending(machine, load, says, OtherPlans(planned.id), pieces)


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard with the example that its tasks are like: a matrix alone does not know how many rows
    a task has, and the loop measures how long an example takes."""

    section: Section
    input_shape: tuple[int, ...]

    def __call__(self, inputs: Arrays) -> dict[str, Array]:
        return self.section(inputs)

    def example(self) -> dict[str, Array]:
        return {"x": np.zeros(self.input_shape, np.float32)}


def _no_plan(section: str) -> Section:
    raise ConfigError(f"no plan, so no section {section}")


def flops_per_s() -> float:
    """Floating-point operations per second of one matrix product, measured."""
    matrix = np.ones((MEASURED_SIDE, MEASURED_SIDE), np.float32)
    best_s = float("inf")
    for _ in range(MEASURED_TIMES):
        started_s = time.perf_counter()
        matrix @ matrix
        best_s = min(best_s, time.perf_counter() - started_s)
    return 2 * MEASURED_SIDE**3 / max(best_s, 1e-9)


def free_bytes() -> int:
    """Memory that is free now; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0
