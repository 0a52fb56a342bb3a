"""From what nodes hold and how fast they are to an assignment for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ddnn.errors import InfeasiblePlanError
from ddnn.pipeline.capacity import is_worth_moving
from ddnn.pipeline.order import Layout, choose_layout
from ddnn.pipeline.periods import FAILURES_PER_S, choose_period
from ddnn.pipeline.roster import Roster
from ddnn.pipeline.settings import Settings
from ddnn.pipeline.sources import (
    Copy,
    Origin,
    Restoration,
    Stamp,
    restore_consistent,
    restore_fresh,
)
from ddnn.pipeline.stage import LayerProfile
from ddnn.protocol.train_messages import TrainAssignment, TrainReply


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Who does what in a term."""

    nodes: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...]
    bottleneck_s: float
    restoration: Restoration
    chain_every: int
    global_every: int
    move_s: float  # what fetching the layers takes at the measured rates, if nothing else is sent

    def __str__(self) -> str:
        pairs = zip(self.nodes, self.ranges, strict=True)
        return ", ".join(f"{node} [{start}, {stop})" for node, (start, stop) in pairs)

    def range_of(self, node: str) -> tuple[int, int] | None:
        return self.ranges[self.nodes.index(node)] if node in self.nodes else None


def plan_layout(
    roster: Roster, names: Sequence[str], profiles: Sequence[LayerProfile], settings: Settings
) -> tuple[tuple[str, ...], Layout]:
    """The nodes in order, and their layout. Raises InfeasiblePlanError."""
    if settings.choose_order and not settings.equal_capacities:
        layout = choose_layout(roster.describe(names, profiles, equal=False, deep=settings.deep))
    else:
        used = names[: len(profiles)]
        layout = roster.describe(
            used, profiles, equal=settings.equal_capacities, deep=settings.deep
        ).cut(range(len(used)))
    return tuple(names[i] for i in layout.devices), layout


PlanLayout = Callable[
    [Roster, Sequence[str], Sequence[LayerProfile], Settings], tuple[tuple[str, ...], Layout]
]


def arrange(
    roster: Roster,
    names: Sequence[str],
    profiles: Sequence[LayerProfile],
    settings: Settings,
    inventories: Mapping[str, Sequence[Copy]],
    version: int,
    failures_per_s: float = FAILURES_PER_S,
    plan: PlanLayout = plan_layout,
) -> Arrangement:
    """Arrange these nodes. version: at which training goes on where restoring is `fresh`."""
    nodes, layout = plan(roster, names, profiles, settings)
    ranges = dict(zip(nodes, layout.ranges, strict=True))
    if settings.restore == "consistent":
        restoration = restore_consistent(inventories, ranges, len(profiles))
    else:
        restoration = restore_fresh(inventories, ranges, version)
    devices = roster.describe(nodes, profiles, equal=settings.equal_capacities, deep=settings.deep)
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
        _count_fetched_bytes(restoration, profiles) / slowest,
    )


def _count_fetched_bytes(restoration: Restoration, profiles: Sequence[LayerProfile]) -> int:
    return sum(
        profiles[layer].state_bytes
        for node, sources in restoration.sources.items()
        for layer, source in sources.items()
        if source.node not in (None, node)
    )


def make_assignment(
    arrangement: Arrangement, node: str, settings: Settings, network: str
) -> TrainAssignment:
    """The assignment of one node. network: its description."""
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
        network,
        settings.deep,
    )


def read_copies(reply: TrainReply) -> list[Copy]:
    """The copies that a node reports."""
    return [
        Copy(layer, Stamp(term, version), Origin(origin))
        for layer, term, version, origin in reply.copies
    ]


def find_better(
    roster: Roster,
    arrangement: Arrangement,
    profiles: Sequence[LayerProfile],
    settings: Settings,
    plan: PlanLayout = plan_layout,
) -> str | None:
    """Why the nodes should be arranged again; None where they should not.

    A node that wants to leave is let go if the others can do without it. Else the gain must be
    worth the move.
    """
    names = roster.list_usable(leaving=False)
    leaving = sorted(set(arrangement.nodes) - set(names))
    if not leaving and (settings.equal_capacities or not settings.repartition_at[1]):
        return None
    try:
        nodes, layout = plan(roster, names, profiles, settings)
    except InfeasiblePlanError:
        return None
    if leaving:
        return f"{', '.join(leaving)} leaves"
    devices = roster.describe(arrangement.nodes, profiles, equal=False, deep=settings.deep)
    current_s = devices.measure_s(range(len(arrangement.nodes)), arrangement.ranges)
    moved_bytes = _count_moved_bytes(arrangement, nodes, layout.ranges, profiles)
    move_s = moved_bytes / min(devices.rates_bytes_per_s)
    if not is_worth_moving(current_s, layout.bottleneck_s, move_s):
        return None
    return f"{1e3 * layout.bottleneck_s:.3g} ms per batch instead of {1e3 * current_s:.3g} ms"


def _count_moved_bytes(
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
