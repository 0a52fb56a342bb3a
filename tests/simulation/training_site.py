"""A central node and workers that train a small network in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from ddnn.core.device import DeviceProfile
from ddnn.pipeline.blobs import unpack_arrays
from ddnn.pipeline.central_node import TrainCentral
from ddnn.pipeline.driver import ProfileJob
from ddnn.pipeline.driver_states import State
from ddnn.pipeline.member import BuildJob
from ddnn.pipeline.runner import StageJob
from ddnn.pipeline.settings import Checkpoint, Settings
from ddnn.pipeline.worker_node import TrainWorker
from ddnn.protocol.topics import Kind, Topic
from ddnn.protocol.train_messages import TrainOffer
from ddnn.runtime.identity import Identity
from ddnn.runtime.lanes import Costs
from ddnn.runtime.simulated_network import Network
from ddnn.runtime.simulation import Simulation
from tests.dense_stage import DenseFactory, make_data

SITE, CENTRAL = "home", "edge"


class TrainingSite:
    """slow: by node, how many times longer than the profile its work takes (C_i)."""

    def __init__(
        self,
        workers: int,
        settings: Settings,
        *,
        factory: DenseFactory | None = None,
        slow: Mapping[str, float] | None = None,
        network: Network | None = None,
        seed: int = 7,
        profiles: Mapping[str, DeviceProfile] | None = None,
    ) -> None:
        self.settings = settings
        self.factory = factory or DenseFactory([6, 8, 8, 8, 8, 4])
        self.data = make_data(self.factory.sizes[0], self.factory.sizes[-1])
        self.slow = dict(slow or {})
        self._profile = self.factory.profile(*self.data(0))
        self.profiles = dict(profiles or {})
        self.checkpoint: Checkpoint | None = None
        self.simulation = Simulation(np.random.default_rng(seed), network)
        self.names = [f"worker{k}" for k in range(1, workers + 1)]
        self._starts = 0
        self.add(CENTRAL, "edge", self._make_central)
        for name in self.names:
            self.add_worker(name)

    def add_worker(self, name: str) -> None:
        if name not in self.names:
            self.names.append(name)

        def make() -> TrainWorker:
            self._starts += 1
            return TrainWorker(
                SITE,
                name,
                "mlp",
                lambda network: self.factory,
                self._starts,
                self.profiles.get(name),
            )

        self.add(name, "worker", make)

    def add(self, name: str, role: Any, make: Callable[[], Any]) -> None:
        costs = Costs(find_call_s=lambda job: self._cost_s(name, job))
        self.simulation.add(
            Identity(SITE, name, role, "", ""),
            lambda pending: make(),
            costs=costs,
            device=self.profiles.get(name),
        )

    def _make_central(self) -> TrainCentral:
        return TrainCentral(
            SITE,
            CENTRAL,
            "run1",
            "mlp",
            self.factory,
            self.data,
            self.settings,
            save=self._save,
            checkpoint=self.checkpoint,
            profile=self.profiles.get(CENTRAL),
        )

    def _save(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def _cost_s(self, name: str, job: Hashable) -> float:
        profile = self._profile
        match job:
            case StageJob(work, _, _, start, stop):
                layers = profile[start:stop]
                forward_s = sum(layer.forward_s for layer in layers)
                backward_s = sum(layer.backward_s for layer in layers)
                seconds = {
                    "forward": forward_s,
                    "backward": backward_s,
                    "train": forward_s + backward_s,
                    "copy": 0.001,
                }[work]
                return self.slow.get(name, 1.0) * seconds
            case ProfileJob():
                return sum(layer.forward_s + layer.backward_s for layer in profile)
            case BuildJob():
                return 0.01
        return 0.001

    # ------------------------------------------------------------------ running

    @property
    def central(self) -> Any:
        """The central node's machine, a TrainCentral; None while it is not running."""
        return self.simulation.machine(self.node(CENTRAL))

    def worker(self, name: str) -> TrainWorker:
        machine: Any = self.simulation.machine(f"{SITE}/{name}")
        return machine

    def node(self, name: str) -> str:
        return f"{SITE}/{name}"

    @property
    def done(self) -> int:
        """Batches that have passed the whole pipeline in this term."""
        central = self.central
        return central.driver.progress.done if central is not None else 0

    def run(self, limit_s: float = 300.0, step_s: float = 1.0) -> None:
        """Run until the training is over; fails where it is not within the limit."""
        until_s = self.simulation.now_s + limit_s
        while self.simulation.now_s < until_s:
            self.simulation.run(self.simulation.now_s + step_s)
            assert self.simulation.failures == []
            machine = self.central
            if machine is not None and machine.is_over:
                assert machine.driver.state is State.ENDED, machine.driver.error
                return
        raise AssertionError(self.describe())

    def run_until(self, batch: int, limit_s: float = 300.0) -> None:
        """Run until so many batches are done."""
        until_s = self.simulation.now_s + limit_s
        while self.done < batch:
            assert self.simulation.now_s < until_s, self.describe()
            self.simulation.run(self.simulation.now_s + 0.002)
            assert self.simulation.failures == []

    def leave(self, name: str) -> None:
        """A worker's process announces that it wants to leave."""
        offer = self.worker(name)._offer
        self.simulation.publish(
            Topic(SITE, Kind.TRAIN_OFFER, name),
            TrainOffer(offer.network, offer.incarnation, True, offer.profile),
        )

    def layers(self) -> dict[int, dict[str, np.ndarray]]:
        """The layers of the trained network."""
        assert self.checkpoint is not None
        assert self.checkpoint.ended
        return {n: unpack_arrays(blob) for n, blob in self.checkpoint.layers.items()}

    @property
    def losses_by_batch(self) -> dict[int, float]:
        results = self.central.driver.progress.results
        return {batch: results[batch].loss for batch in sorted(results)}

    @property
    def losses(self) -> list[float]:
        return list(self.losses_by_batch.values())

    def describe(self) -> str:
        central = self.central
        lines = [f"{self.simulation.now_s:.2f} s"]
        if central is not None:
            driver = central.driver
            question = driver._question
            waiting = sorted(question.waiting) if question is not None else None
            lines.append(f"{driver.state} term {driver.term} done {self.done} waits {waiting}")
            lines += [str(entry) for entry in list(driver.progress.timeline)[-12:]]
        for name in [CENTRAL, *self.names]:
            machine = self.simulation.machine(self.node(name))
            member = getattr(machine, "member", None)
            if member is not None:
                runner = member.runner
                work = (runner.forwards, runner.backwards, runner.busy) if runner else None
                lines.append(f"{name}: {member.state} term {member.term} {work}")
        lines += [
            f"{t:.2f} {n} {e.message % tuple(e.arguments)}"
            for t, n, e in self.simulation.journal.logs[-12:]
        ]
        return "\n".join(lines)


def assert_equal_layers(a: Mapping[int, Any], b: Mapping[int, Any], exactly: bool = True) -> None:
    assert a.keys() == b.keys()
    for layer in a:
        assert a[layer].keys() == b[layer].keys()
        for name in a[layer]:
            if exactly:
                assert np.array_equal(a[layer][name], b[layer][name]), (layer, name)
            else:
                np.testing.assert_allclose(a[layer][name], b[layer][name], rtol=1e-4, atol=1e-5)
