"""A pipeline of processes on this machine: a broker, workers, and this process as central node."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ddnn.adapters import broker as brokers
from ddnn.errors import ConfigError
from ddnn.local_site.broker_process import OWN_BROKER, start_broker
from ddnn.local_site.pipeline_training import TrainingRequest, check_request, train_pipeline
from ddnn.local_site.progress import print_note
from ddnn.protocol.train_messages import TrainState
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.settings import NodeSettings

SITE = "pipeline"
WAIT_S = 120.0  # for all workers to be there


@dataclass(frozen=True, order=True)
class WorkerAction:
    """What happens to a worker after so many batches."""

    after: int
    what: Literal["kill", "stop", "restart"]
    node: str


def parse_worker_action(
    what: Literal["kill", "stop", "restart"], text: str, nodes: Sequence[str]
) -> WorkerAction:
    """The action that "NODE@N" stands for. Raises ConfigError where there is no such worker."""
    node, _, count = text.partition("@")
    if not count.isdecimal():
        raise ConfigError(f"--{what} {text!r}: expected NODE@N, such as worker2@50")
    if node not in nodes:
        there = f"there are {', '.join(nodes)}" if nodes else "there are none: give more --devices"
        raise ConfigError(f"--{what} {node}: no such worker; {there}")
    return WorkerAction(int(count), what, node)


def run_demo(
    *,
    devices: Sequence[float],
    kill: Iterable[str],
    stop: Iterable[str],
    restart: Iterable[str],
    broker: str,
    out: str,
    **keys: Any,
) -> dict[str, Any]:
    """Run the demo; the report of the training.

    devices: how many times slower each one is, the central node first. keys: of TrainingRequest.
    """
    workers = [f"worker{number}" for number in range(1, len(devices))]
    actions = [
        *(parse_worker_action("kill", text, workers) for text in kill),
        *(parse_worker_action("stop", text, workers) for text in stop),
        *(parse_worker_action("restart", text, workers) for text in restart),
    ]
    with ExitStack() as stack:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddnn-pipeline-")))
        request = TrainingRequest(
            out=Path(out) if out else state / "bundle",
            checkpoint=state / "checkpoint.npz",
            workers=len(workers),
            wait_s=WAIT_S,
            threads=1,
            slow=devices[0],
            **keys,
        )
        check_request(request)
        site = PipelineSite(brokers.choose(broker), state)
        stack.callback(site.close)
        site.start(dict(zip(workers, devices[1:], strict=True)))
        print_note(
            f"{len(devices)} devices with one thread each, emulated by stretching the time of "
            f"their computing: {', '.join(f'{factor:g}' for factor in devices)} times"
        )
        report = train_pipeline(request, site.make_settings("central"), site.follow(actions))
        if out:
            print_note(f"see it answer: ddnn demo --bundle {out}")
    return {"devices": list(devices), "emulated": "computing time stretched, one thread", **report}


class PipelineSite:
    """A broker and workers as processes of this machine; `close` ends them."""

    def __init__(self, kind: brokers.Kind, state: Path) -> None:
        """state: a directory for logs and the broker."""
        self.kind, self.state, self.broker_port = kind, state, brokers.free_port()
        self.port = self.broker_port  # where nodes reach the broker
        self.fleet = Fleet(state / "logs")

    def start(self, workers: dict[str, float]) -> None:
        """Start the broker and the workers, each with how many times slower it is.

        Raises LinkError where the broker does not start.
        """
        start_broker(self.fleet, self.kind, self.broker_port, self.state)
        for name, factor in workers.items():
            self.start_worker(name, factor)

    def start_worker(self, name: str, factor: float = 1.0) -> None:
        keys = {
            "node": name,
            "site": SITE,
            "lend": "on",
            "state": self.state,
            "broker-port": self.port,
            "train-threads": 1,
            "slow": factor,
        }
        flags = [word for key, value in keys.items() for word in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "device_app", *flags]
        self.fleet.start(name, command, {"OMP_NUM_THREADS": "1", **OWN_BROKER})

    def make_settings(self, node: str) -> NodeSettings:
        """The settings of a node of this site that is no process of it."""
        return NodeSettings(
            node=node, bundle="", site=SITE, broker_port=self.port, state=str(self.state)
        )

    def follow(self, actions: Iterable[WorkerAction]) -> Any:
        """A function that takes a training's state, and acts where it is time."""
        left = sorted(actions)

        def act(state: TrainState) -> None:
            if state.state == "GATHERING" and not state.batches:
                for node in self.fleet.nodes:  # one that ended offers itself never
                    self.fleet.require_alive(node)
            while left and state.state == "RUNNING" and state.batches >= left[0].after:
                self.act(left.pop(0))

        return act

    def act(self, action: WorkerAction) -> None:
        print_note(f"{action.what} {action.node} after {action.after} batches")
        if action.what == "kill":
            self.fleet.send_signal(action.node, signal.SIGKILL)
        elif action.what == "stop":
            self.fleet.send_signal(action.node, signal.SIGSTOP)
        elif self.fleet.is_alive(action.node):
            self.fleet.send_signal(action.node, signal.SIGCONT)
        else:
            self.fleet.start(action.node)

    def close(self) -> None:
        self.fleet.close()
