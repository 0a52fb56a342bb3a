"""How long a loss takes to be overcome, by phase, and what training is like afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.harness.report import Report
from benchmarks.pipeline.simulated import CENTRAL, SITE, SimulatedPipeline
from ddnn.errors import InfeasiblePlanError
from ddnn.pipeline.order import Layout
from ddnn.pipeline.planner import plan_layout
from ddnn.pipeline.roster import Roster
from ddnn.pipeline.settings import Settings
from ddnn.pipeline.stage import LayerProfile

CAPACITIES = (1.0, 1.0, 2.0, 2.0, 5.0)
LOST_AT, AFTER, LAST = 187, 40, 400  # batches
CHAIN, GLOBAL = 10, 50
PHASES = (("plan", "restart", "layout"), ("fetch", "layout", "held"), ("commit", "held", "start"))


class Takeover:
    """ResPipe's rule: a neighbour takes the layers of a lost node, and the cut stays otherwise."""

    def __init__(self) -> None:
        self._before: tuple[tuple[str, ...], Layout] | None = None
        self._has_lost = False

    def plan(
        self,
        roster: Roster,
        names: Sequence[str],
        profiles: Sequence[LayerProfile],
        settings: Settings,
    ) -> tuple[tuple[str, ...], Layout]:
        before = self._before
        if before is not None and self._has_lost and set(before[0]) <= set(names):
            return before
        if before is None or set(before[0]) <= set(names):
            self._before = plan_layout(roster, names, profiles, settings)
            return self._before
        self._has_lost = True
        nodes: list[str] = []
        ranges: list[tuple[int, int]] = []
        start = 0
        for node, (_, stop) in zip(before[0], before[1].ranges, strict=True):
            if node in names:
                nodes.append(node)
                ranges.append((start, stop))
                start = stop
        if not nodes:
            raise InfeasiblePlanError("no node is left")
        ranges[-1] = (ranges[-1][0], len(profiles))
        devices = roster.describe(nodes, profiles, equal=False)
        seconds = devices.measure_s(range(len(nodes)), ranges)
        self._before = (tuple(nodes), Layout(tuple(range(len(nodes))), tuple(ranges), seconds))
        return self._before


def measure_recovery(profiles: Sequence[LayerProfile], rate: float) -> list[Report]:
    """One row for each way to go on, after a kill and after a stop of the second stage's node."""
    settings = Settings(LAST, chain_every=CHAIN, global_every=GLOBAL)
    rows = []
    for how in ("killed", "stopped"):
        for name in ("ddnn", "takeover", "restart"):
            takeover = Takeover().plan if name == "takeover" else None
            site = SimulatedPipeline(profiles, CAPACITIES, settings, rate, takeover)
            rows.append({"lost": how, "goes_on_by": name, **lose_one(site, how, name == "restart")})
    return rows


def lose_one(site: SimulatedPipeline, how: str, restarts: bool) -> Report:
    """Lose the node of the second stage; the phases until a new batch is done."""
    site.run_to(LOST_AT - 60)
    before_s = site.measure_batch_s(LOST_AT - 50, LOST_AT)
    arrangement = site.central.driver.arrangement
    lost = arrangement.nodes[1] if arrangement else site.workers[0]
    furthest, term = site.done, site.central.driver.term
    lost_s = site.simulation.now_s
    if how == "killed":
        site.crash(lost)
    else:
        site.simulation.stall(f"{SITE}/{lost}")
    noticed_s = site.run_until(lambda: site.central.driver.term > term)
    if restarts:
        others = [name for name in site.workers if name != lost]
        site.crash(CENTRAL, *others)
        site.start(CENTRAL, *others)
        furthest_version = site.checkpoint.stamp.version if site.checkpoint else 0
        again = furthest - furthest_version
    new_s = site.run_until(lambda: site.done > furthest)
    driver = site.central.driver
    at_s = {  # the first of each kind
        entry.kind: entry.wall_s - site.simulation.WALL_S
        for entry in reversed(driver.progress.timeline)
        if entry.wall_s - site.simulation.WALL_S >= lost_s
    }
    row: Report = {"detect_s": round(noticed_s - lost_s, 2)}
    if restarts:
        row["batches_again"] = again
    else:
        for phase, first, last in PHASES:
            row[f"{phase}_s"] = round(at_s[last] - at_s[first], 2)
    row["rerun_s"] = round(new_s - at_s["start"], 2)
    row["total_s"] = round(new_s - lost_s, 2)
    after_s = site.measure_batch_s(furthest + AFTER, furthest + 2 * AFTER)
    row["batch_after_over_before"] = round(after_s / before_s, 2)
    return row
