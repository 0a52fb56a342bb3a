"""The keys of `ddnn demo`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from ddnn.errors import ConfigError
from ddnn.exits.hierarchy import Configuration
from ddnn.rooms import list_redundancies

Port = Annotated[int, msgspec.Meta(gt=0, lt=65536)]


class DemoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of `ddnn demo`."""

    data: Annotated[
        str,
        msgspec.Meta(
            description="NAME[:PATH] of the data set [the bundle's own if rendered; scenes5]."
        ),
    ] = ""
    devices: Annotated[
        int | None, msgspec.Meta(description="How many cameras [6, or those of --bundle].")
    ] = None
    configuration: Annotated[
        Configuration | None,
        msgspec.Meta(description="The paper's Fig. 2, a to f [e, or that of --bundle]."),
    ] = None
    bundle: Annotated[
        str, msgspec.Meta(description="Bundle to run; by default one is trained once and kept.")
    ] = ""
    broker: Annotated[
        Literal["auto", "mosquitto", "embedded"],
        msgspec.Meta(description="auto: Mosquitto if it is installed."),
    ] = "auto"
    headless: Annotated[bool, msgspec.Meta(description="No live view; ends after --samples.")] = (
        False
    )
    samples: Annotated[
        int | None, msgspec.Meta(description="End after so many samples [headless: 100].")
    ] = None
    rate_hz: Annotated[float, msgspec.Meta(description="Samples per second.")] = msgspec.field(
        default=10.0, name="rate"
    )
    kill: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="SIGKILL a node (cam1 …, worker1 …, edge, cloud, broker) after N samples.",
            extra={"metavar": "NODE@N"},
        ),
    ] = ()
    restart: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="Start a killed node again after N samples.", extra={"metavar": "NODE@N"}
        ),
    ] = ()
    redundancy: Annotated[
        str,
        msgspec.Meta(
            description="Share the edge's heavy layer among workers; see `ddnn plan`.",
            extra={"metavar": f"[{'|'.join(('off', *list_redundancies()))}]"},
        ),
    ] = "off"
    workers: Annotated[
        int | None,
        msgspec.Meta(
            description="How many workers share the layer: worker1 … [6 with --redundancy]."
        ),
    ] = None
    tolerate: Annotated[
        int | None, msgspec.Meta(description="So many of them may vanish [1, of none 0].")
    ] = None
    layer: Annotated[str, msgspec.Meta(description="Layer to share [the heaviest].")] = ""
    threshold: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="Another threshold than the bundle's: local=0 sends every sample to the "
            "edge.",
            extra={"metavar": "EXIT=T"},
        ),
    ] = ()
    audit_share: Annotated[
        float,
        msgspec.Meta(
            description="Share of the samples that the local exit is sure of and that go up all "
            "the same; the page shows how often deeper exits agree.",
            ge=0,
            le=1,
        ),
    ] = 0.0
    deadline_s: Annotated[float, msgspec.Meta(description="Deadline of a sample.")] = 1.0
    window_s: Annotated[float, msgspec.Meta(description="Wait for members per stage.")] = 0.12
    broker_port: Annotated[
        Port | None, msgspec.Meta(description="Port of the broker [a free one].")
    ] = None
    http_port: Annotated[
        Port | None, msgspec.Meta(description="Port of the page [8080, or a free one].")
    ] = None
    seed: Annotated[
        int,
        msgspec.Meta(
            description="Seed of data, training and the order in which cameras show their frames.",
            ge=0,
        ),
    ] = 0
    json: Annotated[bool, msgspec.Meta(description="Print one JSON object at the end.")] = False

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise ConfigError(f"--samples {self.samples}: expected 1 or more")
        if not 0 < self.rate_hz <= 1000:
            raise ConfigError(f"--rate {self.rate_hz}: expected above 0, up to 1000 per second")
        if self.redundancy == "off":
            if (self.workers, self.tolerate, self.layer) != (None, None, ""):
                raise ConfigError(
                    "--workers, --tolerate and --layer need --redundancy, such as coded"
                )
            return
        if self.redundancy not in list_redundancies():
            raise ConfigError(
                f"--redundancy {self.redundancy!r}: expected off or one of "
                f"{', '.join(list_redundancies())}"
            )
        if not self.bundle and (self.configuration or "e") in "abc":
            raise ConfigError(
                f"--configuration {self.configuration}: its edge has no section to share; "
                "use d, e or f"
            )
