"""Pipelines in virtual time, whose layers take the time and the bytes of a measured profile.

The machines are those of the real nodes. Layers compute nothing; their arrays are zeros of the
sizes of the profile. All bytes and the rates of all links are divided by SCALE, which leaves every
duration as it is and spares the simulation the copying.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddnn.core.device import DeviceProfile
from ddnn.core.section import Array
from ddnn.errors import ConfigError, DdnnError
from ddnn.pipeline.central_node import TrainCentral
from ddnn.pipeline.driver import ProfileJob
from ddnn.pipeline.planner import PlanLayout
from ddnn.pipeline.runner import StageJob
from ddnn.pipeline.settings import Checkpoint, Settings
from ddnn.pipeline.stage import LastResult, LayerProfile, LayerState, States
from ddnn.pipeline.worker_node import TrainWorker
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Costs
from ddnn.runtime.simulated_network import Network
from ddnn.runtime.simulation import Simulation

SITE, CENTRAL = "home", "central"
SCALE = 256
STEP_S = 0.02  # of virtual time, with which a run is watched
LIMIT_S = 3600.0
COPY_BYTES_PER_S = 1e9  # of a stage's copy in memory


def read_profiles(file: Path) -> list[LayerProfile]:
    """The layers of a result of `benchmarks.pipeline_profile`. Raises ConfigError."""
    try:
        layers = json.loads(file.read_text())["layers"]
        return [LayerProfile(**layer) for layer in layers]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file}: no profile ({error}); make one with python -m benchmarks.pipeline_profile"
        ) from None


class ProfiledStages:
    """Makes stages that compute nothing; see ddnn.pipeline.stage.StageFactory."""

    def __init__(self, profiles: Sequence[LayerProfile]) -> None:
        self.layers = len(profiles)
        self.profiles = [
            LayerProfile(p.forward_s, p.backward_s, p.output_bytes // SCALE, p.state_bytes // SCALE)
            for p in profiles
        ]

    def build(
        self, start: int, stop: int, states: States, *, version: int = 0, keep: int = 1
    ) -> ProfiledStage:
        return ProfiledStage(self.profiles, start, stop)

    def profile(self, inputs: Array, labels: Array) -> Sequence[LayerProfile]:
        return self.profiles


class ProfiledStage:
    """A stage of zeros; see ddnn.pipeline.stage.Stage."""

    def __init__(self, profiles: Sequence[LayerProfile], start: int, stop: int) -> None:
        self.start, self.stop, self._profiles = start, stop, profiles

    def _zeros(self, layer: int) -> Array:
        return np.zeros(max(1, self._profiles[layer].output_bytes), np.uint8)

    def forward(self, batch: int, inputs: Array, version: int | None = None) -> Array:
        return self._zeros(self.stop - 1)

    def backward(self, batch: int, gradient: Array) -> Array | None:
        return self._zeros(self.start - 1) if self.start else None

    def train_last(
        self,
        batch: int,
        inputs: Array,
        labels: Array,
        weight: float = 1.0,
        version: int | None = None,
    ) -> LastResult:
        return LastResult(self.backward(batch, inputs), 0.0, 0, 1)

    def apply(self) -> None: ...

    def aggregate(self, versions: int) -> None: ...

    def read_layer(self, layer: int) -> LayerState:
        return {"x": np.zeros(self._profiles[layer].state_bytes, np.uint8)}

    def discard(self) -> None: ...


def read_batch(number: int) -> tuple[Array, Array]:
    return np.zeros(1, np.uint8), np.zeros(1, np.int64)


@dataclass
class SimulatedPipeline:
    """A central node and workers. capacities: C_i, that of the central node first.

    rate_bytes_per_s: of each node's link. plan: the rule of layouts; None: the product's.
    """

    profiles: Sequence[LayerProfile]
    capacities: Sequence[float]
    settings: Settings
    rate_bytes_per_s: float = 125e6
    plan: PlanLayout | None = None
    seed: int = 0
    checkpoint: Checkpoint | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.stages = ProfiledStages(self.profiles)
        self.simulation = Simulation(np.random.default_rng(self.seed), Network())
        self.workers = [f"worker{number:02d}" for number in range(1, len(self.capacities))]
        self._slow = dict(zip([CENTRAL, *self.workers], self.capacities, strict=True))
        self._starts = 0
        self._add(CENTRAL, "edge", self._make_central)
        for name in self.workers:
            self._add(name, "worker", lambda name=name: self._make_worker(name))  # type: ignore[misc]

    def _add(self, name: str, role: Any, make: Callable[[], Any]) -> None:
        self.simulation.add(
            Identity(SITE, name, role, "", ""),
            lambda pending: make(),
            costs=Costs(find_call_s=lambda job: self._find_call_s(name, job)),
            device=self._describe(name),
        )

    def _describe(self, name: str) -> DeviceProfile:
        bits_per_s = 8 * self.rate_bytes_per_s / SCALE
        return DeviceProfile(name, 1e9, None, bits_per_s, bits_per_s)

    def _make_worker(self, name: str) -> TrainWorker:
        self._starts += 1
        return TrainWorker(
            SITE, name, "", lambda network: self.stages, self._starts, self._describe(name)
        )

    def _make_central(self) -> TrainCentral:
        central = TrainCentral(
            SITE,
            CENTRAL,
            "run",
            "profiled",
            self.stages,
            read_batch,
            self.settings,
            save=self._save,
            checkpoint=self.checkpoint,
            profile=self._describe(CENTRAL),
        )
        if self.plan is not None:
            central.driver.plan_layout = self.plan
        return central

    def _save(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def _find_call_s(self, name: str, job: Hashable) -> float:
        match job:
            case StageJob(work, _, _, start, stop):
                layers = self.profiles[start:stop]
                forward_s = sum(layer.forward_s for layer in layers)
                backward_s = sum(layer.backward_s for layer in layers)
                seconds: Mapping[str, float] = {
                    "forward": forward_s,
                    "backward": backward_s,
                    "train": forward_s + backward_s,
                    "copy": sum(layer.state_bytes for layer in layers) / COPY_BYTES_PER_S,
                }
                return self._slow[name] * seconds[work]
            case ProfileJob():
                return sum(layer.forward_s + layer.backward_s for layer in self.profiles)
        return 0.0

    # ------------------------------------------------------------------ running

    @property
    def central(self) -> TrainCentral:
        machine: Any = self.simulation.machine(f"{SITE}/{CENTRAL}")
        return machine  # type: ignore[no-any-return]

    @property
    def done(self) -> int:
        """Batches done in this term."""
        return self.central.driver.progress.done

    def run_until(self, is_true: Callable[[], object]) -> float:
        """Run until a condition holds; the virtual time. Raises DdnnError after LIMIT_S."""
        until_s = self.simulation.now_s + LIMIT_S
        while not is_true():
            if self.simulation.now_s > until_s or self.simulation.failures:
                happened = list(self.central.driver.progress.timeline)[-5:]
                raise DdnnError(f"the simulated training hangs: {happened}")
            self.simulation.run(self.simulation.now_s + STEP_S)
        return self.simulation.now_s

    def run_to(self, batch: int) -> float:
        return self.run_until(lambda: self.done >= batch)

    def measure_batch_s(self, first: int, last: int) -> float:
        """Seconds per batch between two batches."""
        started_s = self.run_to(first)
        return (self.run_to(last) - started_s) / (last - first)

    def crash(self, *names: str) -> None:
        for name in names:
            self.simulation.crash(f"{SITE}/{name}")

    def start(self, *names: str) -> None:
        for name in names:
            self.simulation.start(f"{SITE}/{name}")
