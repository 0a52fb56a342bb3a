"""A third of the fault matrix with real processes: what happens, at which moment, to how many."""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.message_proxy import MessageProxy
from benchmarks.harness.plain_training import train_plainly, write_pictures
from benchmarks.harness.report import Report, progress_bar
from ddnn.errors import DdnnError, RemoteProtocolError
from ddnn.local_site.pipeline_demo import PipelineSite
from ddnn.local_site.pipeline_training import TrainingRequest, train_pipeline
from ddnn.protocol.machine import Received
from ddnn.protocol.train_messages import TrainCommand, TrainFetch, TrainFlow, TrainState
from ddnn.runtime.packets import unpack

CENTRAL, WORKERS = "central", ("worker1", "worker2", "worker3")
WHOM = {"one": WORKERS[1:2], "two adjacent": WORKERS[:2], "all": WORKERS}
NODE_FAULTS = ("SIGKILL", "SIGSTOP", "restart", "slow")
MESSAGE_FAULTS = ("lost", "duplicated", "reordered")
FAULTS = (*NODE_FAULTS, *MESSAGE_FAULTS)
MOMENTS = ("forward", "backward", "replicate", "probe", "redistribute", "commit")
FIRST = 24  # batches before the fault
BATCH, BATCHES, MICRO_BATCHES, RATE = 8, 120, 4, 0.002
MODEL, CHAIN, GLOBAL = "mlp-24-24-16-16", 2, 4
SLOW = 4.0  # of all nodes, so that all of them are worth a stage
STOPPED_S, LATER_S, MESSAGES = 3.0, 0.3, 3
ON_S, OFF_S = 0.05, 0.25  # of a node that is slow: a sixth of its speed
LIMIT_S = 180.0  # for one training


@dataclass(frozen=True)
class Case:
    """What happens, at which moment of a training, and to which nodes."""

    fault: str
    moment: str
    whom: str


def list_cases() -> list[Case]:
    """Each fault at each moment, with one, two adjacent and all workers in turn."""
    whom = list(WHOM)
    return [
        Case(fault, moment, whom[(row + column) % len(whom)])
        for row, fault in enumerate(FAULTS)
        for column, moment in enumerate(MOMENTS)
    ]


def is_of_moment(message: object, moment: str) -> bool:
    """Whether a message is one of those that make the moment."""
    match message:
        case TrainFlow(way=way):
            return way == moment
        case TrainFetch():
            return moment == "replicate"
        case TrainCommand(action=action):
            moments = {"probe": "probe", "hold": "redistribute", "start": "commit"}
            return moments.get(action) == moment
    return False


class Injector:
    """Decides in the proxy's thread about every message, and strikes when the moment comes.

    A recovery is brought about by the loss of worker3, a probe by that of a message.
    """

    def __init__(self) -> None:
        self._case: Case | None = None
        self._strike: Callable[[str], None] = lambda node: None
        self._lose_worker: Callable[[], None] = lambda: None
        self._is_prepared = self._has_come = False
        self._left = 0

    @property
    def has_come(self) -> bool:
        """Whether the moment has come."""
        return self._has_come

    def arm(self, case: Case, strike: Callable[[str], None], lose: Callable[[], None]) -> None:
        """Wait for the moment of a case. strike: takes each node. lose: kills worker3."""
        self._strike, self._lose_worker = strike, lose
        self._is_prepared = self._has_come = False
        self._left = MESSAGES
        self._case = case

    def disarm(self) -> None:
        self._case = None

    def decide(self, topic: str, payload: bytes) -> Sequence[float]:
        """See `benchmarks.harness.message_proxy.Decide`."""
        case = self._case
        received = _read(topic, payload) if case is not None else None
        if case is None or received is None:
            return [0.0]
        message = received.message
        if not self._is_prepared:
            if not (isinstance(message, TrainFlow) and message.batch >= FIRST):
                return [0.0]
            self._is_prepared = True
            if case.moment in ("redistribute", "commit"):
                self._lose_worker()
            elif case.moment == "probe":
                return []
        if not is_of_moment(message, case.moment):
            return [0.0]
        if case.fault in NODE_FAULTS:
            if not self._has_come:
                self._has_come = True
                for node in WHOM[case.whom]:
                    self._strike(node)
            return [0.0]
        ends = {received.topic.node, getattr(message, "sender", "")}
        if self._left == 0 or not ends.intersection(WHOM[case.whom]):
            return [0.0]
        self._has_come = True
        self._left -= 1
        return {"lost": [], "duplicated": [0.0, LATER_S], "reordered": [LATER_S]}[case.fault]


def _read(topic: str, payload: bytes) -> Received | None:
    try:
        received = unpack(topic, payload)
    except RemoteProtocolError:
        return None
    return received if isinstance(received, Received) else None


class ProxiedSite(PipelineSite):
    """A pipeline whose nodes reach the broker through a proxy."""

    def __init__(self, state: Path, injector: Injector) -> None:
        super().__init__("mosquitto", state)
        self._proxy = MessageProxy(self.broker_port, injector.decide)
        self.port = self._proxy.port

    def close(self) -> None:
        super().close()
        self._proxy.close()

    def revive(self) -> None:
        """Start the workers that are not alive, and let those go on that are stopped."""
        for name in WORKERS:
            if self.fleet.is_alive(name):
                self.fleet.send_signal(name, signal.SIGCONT)
            else:
                self.fleet.start(name)

    def strike(self, fault: str, node: str, is_over: threading.Event) -> None:
        """Do to a node what the fault says."""
        if fault in ("SIGKILL", "restart"):
            self.fleet.send_signal(node, signal.SIGKILL)
        if fault == "restart":
            self.fleet.start(node)
        if fault in ("SIGSTOP", "slow"):
            rhythm_s = (STOPPED_S, LIMIT_S) if fault == "SIGSTOP" else (OFF_S, ON_S)
            arguments = (node, *rhythm_s, is_over)
            threading.Thread(target=self._halt_and_go, args=arguments, daemon=True).start()

    def _halt_and_go(self, node: str, off_s: float, on_s: float, is_over: threading.Event) -> None:
        while not is_over.is_set():
            self.fleet.send_signal(node, signal.SIGSTOP)
            is_over.wait(off_s)
            self.fleet.send_signal(node, signal.SIGCONT)
            is_over.wait(on_s)


def measure_faults(cases: Iterable[Case] | None = None) -> Report:
    """Train once for each case; each result must equal plain training."""
    cases = list(list_cases() if cases is None else cases)
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddnn-faults-")))
        injector = Injector()
        site = ProxiedSite(path, injector)
        stack.callback(site.close)
        site.start(dict.fromkeys(WORKERS, SLOW))
        data = write_pictures(path / "images.npz")
        losses, test_loss, _ = train_plainly(make_request(path, "plain", data))
        show = stack.enter_context(progress_bar("fault matrix", len(cases)))
        rows = []
        for number, case in enumerate(cases):
            show(number, f"{case.fault} at {case.moment}, {case.whom}")
            request = make_request(path, f"case{number}", data)
            rows.append(run_case(site, injector, case, request, (losses, test_loss)))
        show(len(cases))
    return {
        "cases": len(rows),
        "moments_missed": sum(not row["came"] for row in rows),
        "ended": sum(not row["error"] for row in rows),
        "equal": sum(row["equal"] for row in rows),
        "longest_s": max(row["seconds"] for row in rows),
        "rows": rows,
    }


def run_case(
    site: ProxiedSite,
    injector: Injector,
    case: Case,
    request: TrainingRequest,
    plain: tuple[list[float], float],
) -> Report:
    """The row of one training. plain: losses and test loss of plain training."""
    site.revive()
    is_over = threading.Event()
    injector.arm(
        case,
        lambda node: site.strike(case.fault, node, is_over),
        partial(site.fleet.send_signal, WORKERS[-1], signal.SIGKILL),
    )
    started_s, error, report = time.monotonic(), "", dict[str, Any]()

    def check_time(state: TrainState) -> None:
        if time.monotonic() - started_s > LIMIT_S:
            raise DdnnError(f"not over after {LIMIT_S:g} s: {state.state}")

    try:
        report = train_pipeline(request, site.make_settings(CENTRAL), check_time)
    except DdnnError as raised:
        error = str(raised)
    finally:
        is_over.set()
        injector.disarm()
    losses, test_loss = plain
    reported = {
        batch: loss for batch, loss in enumerate(report.get("losses", [])) if loss is not None
    }
    return {
        "fault": case.fault,
        "moment": case.moment,
        "whom": case.whom,
        "came": injector.has_come,
        "failures": report.get("failures", 0),
        "seconds": round(time.monotonic() - started_s, 1),
        "equal": report.get("test_loss") == test_loss
        and reported.items() <= dict(enumerate(losses)).items(),
        "error": error,
    }


def make_request(path: Path, name: str, data: Path) -> TrainingRequest:
    return TrainingRequest(
        model=MODEL,
        data=f"npz:{data}",
        out=path / name,
        checkpoint=path / f"{name}.checkpoint.npz",
        workers=len(WORKERS),
        batch=BATCH,
        batches=BATCHES,
        micro_batches=MICRO_BATCHES,
        learning_rate=RATE,
        restore="consistent",
        chain_every=CHAIN,
        global_every=GLOBAL,
        equal_capacities=True,
        threads=1,
        slow=SLOW,
        wait_s=LIMIT_S,
    )
