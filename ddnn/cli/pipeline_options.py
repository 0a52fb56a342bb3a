"""The keys of `ddnn pipeline train` and `ddnn pipeline demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ddnn.core.ids import require_id
from ddnn.errors import ConfigError
from ddnn.local_site.pipeline_training import TrainingRequest
from ddnn.pipeline.sources import Restore

Positive = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
MODELS = "mobilenet-0.5, mlp-256-256, cloud or package.module:function"
SNAPSHOT_STEPS = 50  # of `consistent`, where --global-every is not given


class TrainingOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys that both commands have: what is trained, and how."""

    model: Annotated[
        str,
        msgspec.Meta(
            description=f"Network: {MODELS}, which returns a list of Keras layers or a functional "
            "model. Workers build it too: of a function of your own they need the module.",
            extra={"names_code": True},
        ),
    ] = "mobilenet-0.5"
    data: Annotated[str, msgspec.Meta(description="NAME[:PATH] of the data set.")] = "scenes"
    batch: Annotated[Positive, msgspec.Meta(description="Samples of a batch.")] = 64
    batches: Annotated[
        Positive | None, msgspec.Meta(description="Train so many batches [--epochs].")
    ] = None
    method: Annotated[
        Literal["sgd", "adam"], msgspec.Meta(description="Optimizer; sgd has a momentum of 0.9.")
    ] = "sgd"
    learning_rate: Annotated[
        float,
        msgspec.Meta(description="At first; it falls to 0 as a half cosine.", gt=0, le=100),
    ] = 0.05
    seed: Annotated[
        Natural, msgspec.Meta(description="Seed of initial weights, batches and dropout.")
    ] = 0
    micro_batches: Annotated[
        Positive,
        msgspec.Meta(
            description="Synchronous: so many batches to an optimizer step, whose gradients equal "
            "those of plain training. 1: asynchronous, as in PipeDream."
        ),
    ] = 1
    deep: Annotated[
        bool,
        msgspec.Meta(
            description="More batches in flight, which hides the time of slow links; takes memory, "
            "and weights are older."
        ),
    ] = False
    restore: Annotated[
        Restore,
        msgspec.Meta(
            description="After a loss go on from the newest copies (fresh), or from one snapshot "
            "of all layers, so that the result equals that without losses (consistent)."
        ),
    ] = "fresh"
    chain_every: Annotated[
        Natural,
        msgspec.Meta(
            description="Each node copies the layers of the one before it every so many steps "
            "[0: chosen from bandwidth and failures]."
        ),
    ] = 0
    global_every: Annotated[
        Natural,
        msgspec.Meta(
            description="The central node copies all layers, and writes its checkpoint, every so "
            f"many steps [0: chosen; {SNAPSHOT_STEPS} with consistent]."
        ),
    ] = 0
    repartition_every: Annotated[
        Natural,
        msgspec.Meta(
            description="Compare the cut with the best one after 10 batches, and every so many "
            "then. 0: keep the first one."
        ),
    ] = 100
    equal_capacities: Annotated[
        bool,
        msgspec.Meta(description="Do not measure devices: the static cut of PipeDream."),
    ] = False
    json: Annotated[bool, msgspec.Meta(description="Print one JSON object.")] = False


class PipelineTrainOptions(TrainingOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of `ddnn pipeline train`; those of the broker are the nodes' (see ObserverSettings)."""

    out: Annotated[str, msgspec.Meta(description="Directory of the bundle to write.")]
    workers: Annotated[
        str,
        msgspec.Meta(
            description="announced: all nodes that lend at the site now, at least one; or wait for "
            "so many; 0: begin at once. Further ones may join at any time.",
            extra={"metavar": "announced|N"},
        ),
    ] = "announced"
    wait_s: Annotated[
        float, msgspec.Meta(description="Wait so long for workers, at most.", gt=0, le=86400)
    ] = 60.0
    node: Annotated[
        str,
        msgspec.Meta(
            description="Id of this node, the central one, at the site [central, or that of the "
            "site file]."
        ),
    ] = ""
    checkpoint: Annotated[
        str,
        msgspec.Meta(
            description="File from which the same command goes on after it was killed "
            "[OUT.checkpoint.npz, removed at the end]."
        ),
    ] = ""
    epochs: Annotated[
        float, msgspec.Meta(description="Passes over the training samples.", gt=0, le=100_000)
    ] = 1.0
    crops: Annotated[
        bool, msgspec.Meta(description="Shift and flip images at random, for photographs.")
    ] = False
    delay: Annotated[
        Natural,
        msgspec.Meta(
            description="Every layer uses the weights of so many steps before, whatever the cut "
            "(vertical sync); 0: each stage uses its latest weights."
        ),
    ] = 0
    aggregate_every: Annotated[
        Natural,
        msgspec.Meta(
            description="Replace weights by the mean of the versions in flight every so many "
            "steps; 0: never."
        ),
    ] = 0
    recompute: Annotated[
        bool,
        msgspec.Meta(description="Compute forwards again for backwards: less memory, more time."),
    ] = False
    threads: Annotated[
        Positive | None, msgspec.Meta(description="Threads of TensorFlow here [one per core].")
    ] = None

    def __post_init__(self) -> None:
        if self.node:
            require_id(self.node, "node")
        if self.workers != "announced" and not self.workers.isdecimal():
            raise ConfigError(
                f"--workers {self.workers!r}: expected announced, or a number such as 2"
            )
        if self.delay and self.micro_batches > 1:
            raise ConfigError("--delay with --micro-batches; expected one of them")

    def make_request(self) -> TrainingRequest:
        """The request, with the defaults that depend on other keys."""
        out = Path(self.out)
        checkpoint = self.checkpoint or f"{out.absolute()}.checkpoint.npz"
        given = msgspec.structs.asdict(self)
        names = TrainingRequest.__dataclass_fields__.keys() & given.keys()
        kept = {name: given[name] for name in names}
        kept.update(
            out=out,
            checkpoint=Path(checkpoint),
            workers=None if self.workers == "announced" else int(self.workers),
            global_every=choose_global_every(self),
        )
        return TrainingRequest(**kept)


class PipelineDemoOptions(TrainingOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of `ddnn pipeline demo`."""

    model: Annotated[
        str, msgspec.Meta(description=f"Network: {MODELS}.", extra={"names_code": True})
    ] = "mobilenet-0.25"
    batch: Annotated[Positive, msgspec.Meta(description="Samples of a batch.")] = 32
    batches: Annotated[Positive, msgspec.Meta(description="Train so many batches.")] = 150
    devices: Annotated[
        str,
        msgspec.Meta(
            description="How many times slower each device is than this machine, the central node "
            "first; emulated by stretching the measured time of its computing.",
            extra={"metavar": "C,C,…"},
        ),
    ] = "1,1,10"
    out: Annotated[str, msgspec.Meta(description="Keep the trained bundle in this directory.")] = ""
    kill: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="SIGKILL a worker (worker1 …) after N batches.",
            extra={"metavar": "NODE@N"},
        ),
    ] = ()
    stop: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="SIGSTOP a worker after N batches: it hangs.", extra={"metavar": "NODE@N"}
        ),
    ] = ()
    restart: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="Start a killed worker again, or continue a stopped one.",
            extra={"metavar": "NODE@N"},
        ),
    ] = ()
    broker: Annotated[
        Literal["auto", "mosquitto", "embedded"],
        msgspec.Meta(description="auto: Mosquitto if it is installed."),
    ] = "auto"

    def __post_init__(self) -> None:
        _ = self.factors

    @property
    def factors(self) -> list[float]:
        """How many times slower each device is, the central node first."""
        try:
            factors = [float(word) for word in self.devices.split(",")]
        except ValueError:
            factors = []
        if not 1 <= len(factors) <= 32 or not all(1 <= factor <= 1000 for factor in factors):
            raise ConfigError(
                f"--devices {self.devices!r}: expected 1 to 32 numbers from 1 to 1000, such as "
                "1,1,10"
            )
        return factors


def choose_global_every(options: TrainingOptions) -> int:
    """--global-every, or that of consistent snapshots."""
    every = options.global_every
    return SNAPSHOT_STEPS if options.restore == "consistent" and not every else every
