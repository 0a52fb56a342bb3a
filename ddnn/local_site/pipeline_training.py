"""A pipeline training as its central node runs it: from a data set to a bundle."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ddnn.adapters.joined import open_guard
from ddnn.adapters.mqtt import MqttTransport
from ddnn.errors import ConfigError, DdnnError, InfeasiblePlanError, LinkError
from ddnn.local_site.pipeline_checkpoint import CheckpointFile
from ddnn.local_site.pipeline_report import TrainingDisplay, make_report
from ddnn.local_site.progress import print_note, show_progress
from ddnn.pipeline.blobs import unpack_arrays
from ddnn.pipeline.central_node import TrainCentral
from ddnn.pipeline.driver_states import State
from ddnn.pipeline.settings import Checkpoint, Settings
from ddnn.pipeline.sources import Restore
from ddnn.protocol.train_messages import TrainState
from ddnn.runtime.identity import Identity
from ddnn.runtime.learned import write_learned
from ddnn.runtime.loop import Loop
from ddnn.runtime.new_directory import write_directory
from ddnn.runtime.profile import measure_profile
from ddnn.runtime.service import find_ddnn_version
from ddnn.runtime.settings import NodeSettings

if TYPE_CHECKING:
    from ddnn.data import Dataset
    from ddnn.training.stages.factory import KerasStages

POLL_S = 0.05
CONNECT_S = 10.0  # without a connection to the broker, before training begins
JPEG_SAMPLES = 100
BUILD_S = 180.0  # within which a node imports TensorFlow and builds its layers
FIRST_BATCH_S = 180.0  # within which the first batch is done: every node compiles
Refresh = Callable[[TrainState], None]


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What is to be trained, and how.

    workers: how many must offer themselves before training begins; None: at least one, and those
    that follow within `gather_s`. batches: at which training ends; None: after `epochs`. slow: how
    many times longer this node's computing takes, for experiments. Other fields: see
    `ddnn.pipeline.settings.Settings`, OptimizerSettings and NumberedBatches.
    """

    model: str
    data: str
    out: Path
    checkpoint: Path
    workers: int | None = None
    wait_s: float = 60.0
    gather_s: float = 2.0
    batch: int = 64
    batches: int | None = None
    epochs: float = 1.0
    method: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = 0.05
    crops: bool = False
    seed: int = 0
    micro_batches: int = 1
    restore: Restore = "fresh"
    deep: bool = False
    delay: int = 0
    aggregate_every: int = 0
    chain_every: int = 0
    global_every: int = 0
    repartition_every: int = 100
    equal_capacities: bool = False
    recompute: bool = False
    threads: int | None = None
    slow: float = 1.0
    notes: dict[str, str | float | int] = field(default_factory=dict)

    def make_settings(self, batches: int) -> Settings:
        """The settings of the machines. Raises ConfigError where they do not fit together."""
        first = min(10, self.repartition_every)
        return Settings(
            batches,
            micro_batches=self.micro_batches,
            aggregate_every=self.aggregate_every,
            delay=self.delay,
            deep=self.deep,
            chain_every=self.chain_every,
            global_every=self.global_every,
            restore=self.restore,
            least_workers=1 if self.workers is None else self.workers,
            gather_s=self.gather_s,
            repartition_at=(first, self.repartition_every),
            equal_capacities=self.equal_capacities,
            hold_s=BUILD_S,
            first_batch_s=FIRST_BATCH_S,
        )


def train_pipeline(
    request: TrainingRequest, node: NodeSettings, refresh: Refresh = lambda state: None
) -> dict[str, Any]:
    """Train with the workers of a site, write the bundle, and return the report.

    refresh: called about twenty times a second. Raises a DdnnError before any long work where the
    request cannot be fulfilled, and where the training fails; its checkpoint stays then.
    """
    started_s = time.monotonic()
    with write_directory(request.out) as fresh, show_progress() as progress:
        progress("loading data", 0, 1)
        from ddnn.data import check_trainable, describe_dataset, load

        dataset = load(request.data, seed=request.seed)
        for line in describe_dataset(dataset):
            print_note(line)
        check_trainable(dataset, request.data)
        progress("loading data", 1, 1)
        progress("importing TensorFlow", 0, 1)
        prepared = prepare(request, dataset)
        if ":" in request.model:  # the user's; the product's own are known to convert
            from ddnn.training.stages.result import check_export

            check_export(prepared.stages, request.model)
        progress("importing TensorFlow", 1, 1)
        display = TrainingDisplay(progress)
        checkpoint = prepared.file.read()
        if checkpoint is not None:
            print_note(f"goes on from {request.checkpoint}, step {checkpoint.stamp.version}")
        central = None
        if checkpoint is None or not checkpoint.ended:
            central = make_central(request, node, prepared, checkpoint)

            def show(state: TrainState) -> None:
                display.show(state)
                refresh(state)

            run_central(central, node, request, show)
            checkpoint = prepared.file.latest
        if checkpoint is None:
            raise DdnnError("the training ended without a copy of its layers")
        measured = write_bundle(request, dataset, prepared, checkpoint, fresh, progress)
    prepared.file.remove()
    report = make_report(central, request.model, prepared.stages.layers)
    seconds = round(time.monotonic() - started_s, 1)
    return {"bundle": str(request.out), **report, **measured, "seconds": seconds}


@dataclass(frozen=True)
class Prepared:
    """What a training needs that takes a while to make."""

    stages: KerasStages
    description: str
    settings: Settings
    data: Callable[[int], tuple[Any, Any]]
    file: CheckpointFile


def prepare(request: TrainingRequest, dataset: Dataset) -> Prepared:
    """Build the network and the batches. Raises ConfigError where they do not fit."""
    from ddnn.training.stages.batches import make_batches
    from ddnn.training.stages.description import NetworkDescription
    from ddnn.training.stages.optimizers import OptimizerSettings
    from ddnn.training.stages.threads import set_threads

    if request.threads is not None:
        set_threads(request.threads)
    batches = make_batches(dataset.train, request.batch, seed=request.seed, crops=request.crops)
    count = request.batches or max(1, round(request.epochs * batches.batches_per_epoch))
    count = -(-count // request.micro_batches) * request.micro_batches
    settings = request.make_settings(count)
    description = NetworkDescription(
        model=request.model,
        input_shape=batches.make(0)[0].shape[1:],
        classes=len(dataset.classes),
        seed=request.seed,
        optimizer=OptimizerSettings(
            method=request.method,
            learning_rate=request.learning_rate,
            steps=count // request.micro_batches,
        ),
        recompute=request.recompute,
    )
    facts = {
        "network": description.to_text(),
        "data": request.data,
        "batch": request.batch,
        "crops": request.crops,
        "batches": count,
        "micro_batches": request.micro_batches,
    }
    file = CheckpointFile(request.checkpoint, facts)
    return Prepared(description.open(), description.to_text(), settings, batches.make, file)


def make_central(
    request: TrainingRequest,
    node: NodeSettings,
    prepared: Prepared,
    checkpoint: Checkpoint | None,
) -> TrainCentral:
    """The central node's machine."""
    from ddnn.training.stages.slow import SlowStages

    stages = prepared.stages
    return TrainCentral(
        node.site,
        node.node,
        f"{node.node}-{time.time():.0f}",
        prepared.description,
        stages if request.slow == 1 else SlowStages(stages, request.slow),
        prepared.data,
        prepared.settings,
        save=prepared.file.write,
        checkpoint=checkpoint,
        profile=measure_profile(node.node),
    )


def run_central(
    central: TrainCentral, node: NodeSettings, request: TrainingRequest, show: Refresh
) -> None:
    """Run the central node until its training is over. Raises a DdnnError where it fails."""
    transport = MqttTransport.of(node)
    identity = Identity(node.site, node.node, "worker", "", find_ddnn_version())
    guard = open_guard(node, ("central",))
    loop = Loop(identity, central, transport, guard=guard, stats_every_s=node.stats_every_s)
    loop.start()
    started_s = time.monotonic()
    try:
        while not central.is_over:
            time.sleep(POLL_S)
            done = central.driver.progress.done  # the view is up to a second old
            show(msgspec.structs.replace(central.view, batches=done))
            now_s = time.monotonic()
            if loop.failed is not None:
                raise DdnnError(f"the central node failed: {loop.failed}")
            is_cut_off = not loop.link.connected and now_s - loop.link.since_s > CONNECT_S
            if is_cut_off and central.driver.term == 0:
                raise LinkError(
                    f"the broker at {transport.broker} does not answer: {loop.link.reason}; start "
                    "it, or give --broker-host and --broker-port"
                )
            if now_s - started_s > request.wait_s and central.driver.state is State.GATHERING:
                raise InfeasiblePlanError(explain_absence(central, request, node))
        show(central.view)
    except KeyboardInterrupt:
        raise DdnnError(
            "interrupted; the same command goes on from the checkpoint "
            f"{request.checkpoint}, where there is one yet"
        ) from None
    finally:
        loop.close()
    if central.driver.state is State.FAILED:
        raise DdnnError(f"the training failed: {central.driver.error}")


def explain_absence(central: TrainCentral, request: TrainingRequest, node: NodeSettings) -> str:
    """Why training does not begin."""
    wanted = 1 if request.workers is None else request.workers
    return (
        f"{central.view.workers} of {wanted} workers offered themselves at site {node.site} within "
        f"{request.wait_s:g} s; start them with `python -m device_app --node worker1 --lend on` "
        "where the extra train is installed (pip install 'ddnn[train]'), or give fewer --workers"
    )


def write_bundle(
    request: TrainingRequest,
    dataset: Dataset,
    prepared: Prepared,
    checkpoint: Checkpoint,
    out: Path,
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Write the trained network as a bundle; its accuracy."""
    from ddnn.adapters.litert import LiteRtSection
    from ddnn.data import FolderRequest, measure_jpeg_bytes
    from ddnn.training.stages.batches import join_views
    from ddnn.training.stages.result import evaluate, export_bundle, join_layers

    states = {layer: unpack_arrays(blob) for layer, blob in checkpoint.layers.items() if blob}
    model = join_layers(prepared.stages, states)
    test = evaluate(model, join_views(dataset.test.images), dataset.test.labels)
    if not math.isfinite(test.loss):
        raise DdnnError(
            f"the trained network's loss is {test.loss}; remove {request.checkpoint}, and train "
            "with a lower --learning-rate"
        )
    name = request.data.partition(":")[0]
    notes: dict[str, str | float | int] = {"model": request.model, "data_seed": request.seed}
    if name.startswith("eth80"):
        notes["objects_test"] = int(dataset.test.groups[0])
    else:
        write_learned(out, dataset.train.images, dataset.validation.images)
    manifest = export_bundle(
        model,
        dataset,
        out,
        LiteRtSection,
        name=request.out.name,
        data=name,
        jpeg_bytes=float(measure_jpeg_bytes(dataset.validation.images[:JPEG_SAMPLES]).mean()),
        notes={**notes, **request.notes},
        preprocessing=FolderRequest().preprocessing if name == "directory" else None,
        progress=progress,
    )
    everyone = manifest.accuracy[str(manifest.hierarchy.everyone)]
    return {
        "validation_accuracy": everyone,
        "test_accuracy": round(test.accuracy, 4),
        "test_loss": round(test.loss, 4),
    }


def check_request(request: TrainingRequest) -> None:
    """Raise ConfigError where the request contradicts itself, before data are loaded."""
    if (request.out / "manifest.json").exists():
        raise ConfigError(f"--out {request.out} holds a bundle; remove it or choose another")
    if request.delay and request.micro_batches > 1:
        raise ConfigError("--delay with --micro-batches; expected one of them")
    request.make_settings(request.micro_batches)
