"""From what nodes hold and how fast they are to an assignment for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ddnn.pipeline.order import Layout, choose_layout
from ddnn.pipeline.periods import choose_period
from ddnn.pipeline.roster import Roster
from ddnn.pipeline.settings import Settings
from ddnn.pipeline.sources import Copy, Restoration, restore_consistent, restore_fresh
from ddnn.pipeline.stage import LayerProfile
from ddnn.protocol.train_messages import TrainAssignment

FAILURES_PER_S = 1 / 3600  # of each node, until failures were counted


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Who does what in a term."""

    nodes: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...]
    bottleneck_s: float
    restoration: Restoration
    chain_every: int
    global_every: int

    def range_of(self, node: str) -> tuple[int, int] | None:
        return self.ranges[self.nodes.index(node)] if node in self.nodes else None


def plan_layout(
    roster: Roster, names: Sequence[str], profiles: Sequence[LayerProfile], settings: Settings
) -> tuple[tuple[str, ...], Layout]:
    """The nodes in order, and their layout. Raises InfeasiblePlanError."""
    if settings.choose_order and not settings.equal_capacities:
        layout = choose_layout(roster.describe(names, profiles, equal=False))
    else:
        used = names[: len(profiles)]
        layout = roster.describe(used, profiles, settings.equal_capacities).cut(range(len(used)))
    return tuple(names[i] for i in layout.devices), layout


def arrange(
    roster: Roster,
    names: Sequence[str],
    profiles: Sequence[LayerProfile],
    settings: Settings,
    inventories: Mapping[str, Sequence[Copy]],
    version: int,
    failures_per_s: float = FAILURES_PER_S,
) -> Arrangement:
    """Arrange these nodes. version: at which training goes on where restoring is `fresh`."""
    nodes, layout = plan_layout(roster, names, profiles, settings)
    ranges = dict(zip(nodes, layout.ranges, strict=True))
    if settings.restore == "consistent":
        restoration = restore_consistent(inventories, ranges, len(profiles))
    else:
        restoration = restore_fresh(inventories, ranges, version)
    devices = roster.describe(nodes, profiles, settings.equal_capacities)
    slowest = min(devices.rates_bytes_per_s)
    stage_bytes = [sum(p.state_bytes for p in profiles[a:b]) for a, b in layout.ranges]
    step_s = max(layout.bottleneck_s, 1e-6) * settings.micro_batches
    return Arrangement(
        nodes,
        layout.ranges,
        layout.bottleneck_s,
        restoration,
        settings.chain_every
        or choose_period(max(stage_bytes), slowest, step_s, failures_per_s * len(nodes)),
        settings.global_every
        or choose_period(sum(stage_bytes[1:]), slowest, step_s, failures_per_s),
    )


def make_assignment(arrangement: Arrangement, node: str, settings: Settings) -> TrainAssignment:
    """The assignment of one node."""
    sources = arrangement.restoration.sources[node]
    return TrainAssignment(
        list(arrangement.nodes),
        list(arrangement.ranges),
        arrangement.restoration.version,
        settings.batches,
        settings.round_batches,
        settings.micro_batches,
        [(n, source.node, *source.stamp) for n, source in sources.items() if source.node],
        settings.aggregate_every,
        settings.delay,
        arrangement.chain_every,
        arrangement.global_every,
        settings.restore == "consistent",
    )


def count_moved_bytes(
    before: Arrangement,
    nodes: Sequence[str],
    ranges: Sequence[tuple[int, int]],
    profiles: Sequence[LayerProfile],
) -> int:
    """How many bytes of layers travel to change from one arrangement to another."""
    moved = 0
    for node, (start, stop) in zip(nodes, ranges, strict=True):
        held = before.range_of(node) or (0, 0)
        moved += sum(
            profiles[n].state_bytes for n in range(start, stop) if not held[0] <= n < held[1]
        )
    return moved
