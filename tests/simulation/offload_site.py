"""Sites whose edge offloads its section to workers, also between head and tail in a code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import msgspec
import numpy as np

from ddnn.coding.certification import certify
from ddnn.coding.code import Code
from ddnn.coding.combiner import CodingCombiner
from ddnn.coding.coverage import compute_cost
from ddnn.coding.detail import ROOM, CertificateSummary, CodingDetail
from ddnn.coding.layers import Linear, split_layer
from ddnn.coding.section import MatrixSection
from ddnn.core.plan import PieceKey, Plan
from ddnn.core.section import Section
from ddnn.exits.manifest import Manifest
from ddnn.exits.timing import Timing
from ddnn.machines.offload import Combiner
from ddnn.machines.offload_node import OffloadNode
from ddnn.machines.worker import WorkerNode
from ddnn.protocol.machine import SectionName
from ddnn.protocol.offload_state import OffloadState
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Costs
from ddnn.runtime.simulated_network import Network
from ddnn.runtime.simulation import Simulation
from tests.plan_builders import make_piece, make_plan
from tests.simulation.scenario import TIMING, Scenario, build_scenario
from tests.simulation.small_hierarchy import (
    BUNDLE,
    CLASSES,
    EDGE_FEATURES,
    FEATURES,
    choose_thresholds,
    make_hierarchy,
    make_manifest,
    make_sections,
)

EDGE = "edge"
PLAN = "cd34ef56"
HEAD, TAIL = PieceKey(PLAN, "head"), PieceKey(PLAN, "tail")
INPUTS, UNITS = 24, 40  # of the layer; the units are no multiple of most numbers of blocks
DEVICES = 6
STEADY = Network(latency_s=0.002, jitter_s=0.0)
JITTER = Network(latency_s=0.002, jitter_s=0.002)
TIMEOUT_S = 0.08


class OffloadSite:
    """A site whose edge offloads its section to workers.

    shards: the pieces' sections; sections: all others, the undivided one too. error: of
    probabilities, against the undivided section.
    """

    error = 0.0

    make_combiner: Callable[[Plan], Combiner]
    plan: Plan
    manifest: Manifest
    sections: dict[SectionName, Section]
    shards: dict[PieceKey, Section]
    workers: Mapping[str, tuple[int, ...]]

    def wrap_edge(self, inner, **options) -> OffloadNode:
        options = {"timeout_s": TIMEOUT_S, **options}
        return OffloadNode(inner, "home", self.plan, self.make_combiner, **options)

    def make_worker(self, name: str) -> WorkerNode:
        return WorkerNode("home", name, self.plan, None)

    def make_run(
        self,
        *,
        samples: int = 30,
        network: Network = JITTER,
        seed: int = 3,
        timing: Timing = TIMING,
        compute_s: float = 0.002,
        **options,
    ):
        """Make a run of the site with its workers; all nodes start at virtual time 0.

        compute_s: what a piece takes at a worker.
        """
        run = Run(
            self,
            build_scenario(
                self.manifest,
                self.sections,
                samples=samples,
                seed=seed,
                network=network,
                timing=timing,
                wrap=lambda edge: self.wrap_edge(edge, **options),
            ),
        )
        for name in self.workers:
            run.add_worker(name, compute_s=compute_s)
        return run

    def run_without_workers(self, samples: int = 30, seed: int = 3) -> Scenario:
        """Run the same samples without workers: the edge computes them all."""
        scenario = build_scenario(
            self.manifest, self.sections, samples=samples, seed=seed, network=JITTER
        )
        scenario.run()
        return scenario


class CodedSite(OffloadSite):
    """The plan, the manifest and the sections of one site, whose layer is coded with `code`."""

    make_combiner = CodingCombiner

    def __init__(
        self,
        code: Code,
        workers: Mapping[str, tuple[int, ...]] | None = None,
        *,
        tolerate: int | None = None,
        units: int = UNITS,
        seed: int = 11,
        plan_id: str = PLAN,
    ) -> None:
        generator = np.random.default_rng(seed)

        def draw_matrix(rows: int, columns: int):
            return generator.normal(0, rows**-0.5, (rows, columns)).astype(np.float32)

        self.code, self.units = code, units
        fused = int(np.prod(FEATURES)) * DEVICES
        to_x, to_carry = draw_matrix(fused, INPUTS), draw_matrix(fused, len(CLASSES))
        kernel, bias = draw_matrix(INPUTS, units), draw_matrix(4, units)[0]
        to_scores = 6 * draw_matrix(units, len(CLASSES))
        to_features = draw_matrix(units, int(np.prod(EDGE_FEATURES)))

        def head(arrays):
            flat = arrays["features"].astype(np.float32).reshape(-1)
            return {"x": np.tanh(flat @ to_x), "carry0": flat @ to_carry}

        def tail(arrays):
            active = np.maximum(arrays["z"], 0)
            features = np.tanh(active @ to_features - 0.3).reshape(EDGE_FEATURES)
            return {"scores": active @ to_scores + arrays["carry0"], "features": features}

        def whole(arrays):
            inner = head(arrays)
            return tail({"z": inner["x"] @ kernel + bias, "carry0": inner["carry0"]})

        layer = Linear("dense", kernel, bias)
        split = split_layer(layer, code.n, code.s, code=code)
        self.shards = {
            PieceKey(plan_id, piece): MatrixSection(shard.kernel, shard.bias, lambda: 0.0)
            for piece, shard in enumerate(split.shards)
        }
        self.workers = dict(workers or {f"worker{i + 1}": (i,) for i in range(code.n)})
        plain = make_manifest(make_hierarchy("e", DEVICES))
        self.sections = {**make_sections(plain), EDGE: whole}
        self.sections |= {PieceKey(plan_id, "head"): head, PieceKey(plan_id, "tail"): tail}
        middle = choose_thresholds(plain, self.sections)
        # Most samples need the layer.
        thresholds = {**middle.thresholds, "local": 0.6 * middle.thresholds["local"]}
        self.manifest = msgspec.structs.replace(middle, thresholds=thresholds)
        certificate = certify(code, exhaustive_limit=1000, samples=20)
        assert certificate.decodable
        self.error = certificate.worst_condition * 1e-5  # float32, a few products deep
        self.detail = CodingDetail(
            layer="fc",
            kind="dense",
            redundancy="coded" if code.s else "none",
            tolerate=code.s if tolerate is None else tolerate,
            code=code.name,
            s=code.s,
            generator=code.generator.tolist(),
            units=units,
            cost=compute_cost(layer, split, (INPUTS,)),
            certificate=CertificateSummary(
                certificate.worst_condition,
                certificate.worst_set,
                certificate.exhaustive,
                certificate.checked,
            ),
        )
        self.plan = make_plan(
            self.workers,
            make_piece({"x": (INPUTS,)}, {"z": (split.shards[0].units,)}),
            plan_id=plan_id,
            room=ROOM,
            bundle=BUNDLE,
            group=EDGE,
            owned={
                "head": make_piece({"features": (fused,)}, {"x": (INPUTS,)}),
                "tail": make_piece({"z": (units,)}, {"scores": (len(CLASSES),)}),
            },
            detail=msgspec.to_builtins(self.detail),
        )


@dataclass
class Run:
    """A site in the simulation."""

    site: OffloadSite
    scenario: Scenario

    @property
    def simulation(self) -> Simulation:
        return self.scenario.simulation

    @cached_property
    def store(self):
        return {sample: answer for (_, sample), answer in self.simulation.store.items()}

    def add_worker(
        self, name: str, shards: Mapping[str, Section] | None = None, compute_s=0.002
    ) -> None:
        """Add a worker, planned or a spare."""
        self.simulation.add(
            Identity("home", name, "worker", BUNDLE, ""),
            lambda pending: self.site.make_worker(name),
            shards or self.site.shards,
            costs=Costs(any_section_s=compute_s),
        )

    def machine(self, name: str):
        return self.simulation.machine(f"home/{name}")

    @property
    def offload_state(self) -> OffloadState:
        return self.machine(EDGE).state()

    def schedule(self, time_s: float, action: str, *workers: str) -> None:
        """Call an action (crash, start, stall, resume) of the simulation on workers at a time."""
        method = getattr(self.simulation, action)
        for worker in workers:
            self.simulation.at(time_s, partial(method, f"home/{worker}"))
