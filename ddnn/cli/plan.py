"""`ddnn plan`: share an edge's section among workers, with redundancy."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import msgspec

from ddnn.adapters.command import exit_codes, read_config, schema_options
from ddnn.cli.observer import (
    SITE_KEYS,
    ObserverSettings,
    list_site_options,
    read_observer_settings,
)
from ddnn.cli.site_observer import observe_site
from ddnn.core.device import DeviceProfile, estimate_outage
from ddnn.core.plan import PlanRequest
from ddnn.errors import ConfigError, InfeasiblePlanError
from ddnn.local_site.planning import UNIT_FLOPS_PER_S, parse_workers, plan_bundle
from ddnn.local_site.progress import print_note
from ddnn.protocol.offload_state import WorkerState
from ddnn.rooms import find_room, levels_speeds, list_redundancies
from ddnn.runtime.bundle import read_manifest
from ddnn.runtime.plans import DIRECTORY

MAX_RATIO = 4  # a worker gets at most so many times as many pieces as the slowest one
MIN_OBSERVED_S = 60.0  # shorter observations of a worker are not used
PREFIX = "DDNN_PLAN_"
EPILOG = """\b
Examples:
  ddnn plan --bundle bundle --redundancy coded --workers 6 --tolerate 2
  ddnn plan --bundle bundle --workers pi3,pi4=2,pi5=4 --tolerate 1
  ddnn plan --bundle bundle --workers announced --broker-host edge.lan
  ddnn plan --bundle bundle --redundancy coded-sparse --layer dense1 --workers 12 --tolerate 2
  ddnn plan --bundle bundle --redundancy students --workers 8
  ddnn plan --bundle bundle --redundancy students --workers 8 --outage 0.2 --p-th 0.01
  ddnn plan --bundle bundle --redundancy students --workers 6 --data eth80:eth80.npz

\b
Then, with the bundle on every node:
  python -m edge_app --node edge --bundle bundle --redundancy on
  python -m device_app --node worker1 --bundle bundle --lend on
"""


class PlanOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of `ddnn plan`; those of the broker are the nodes' (see ObserverSettings)."""

    bundle: Annotated[str, msgspec.Meta(description="Bundle whose edge section is shared.")]
    out: Annotated[str, msgspec.Meta(description="Directory to write [BUNDLE/deployment].")] = ""
    redundancy: Annotated[
        str,
        msgspec.Meta(
            description="none: after any loss the edge computes the layer itself; replicate: "
            "copies of every block; coded: one parity shard for each worker that may vanish; "
            "coded-sparse: the same, for layers that were pruned (ddnn train --sparsity); "
            "students: small networks that are trained to replace the section, each held by a "
            "group of workers.",
            extra={"metavar": f"[{'|'.join(list_redundancies())}]"},
        ),
    ] = "coded"
    workers: Annotated[
        str,
        msgspec.Meta(
            description="6: worker1 to worker6; or names, with =POWER where they differ; or "
            "announced: all nodes that lend at the site now (see --broker-host); or a .toml file "
            "of their profiles.",
            extra={"metavar": "N|NAMES|announced|FILE"},
        ),
    ]
    tolerate: Annotated[
        int | None,
        msgspec.Meta(
            description="So many workers may vanish, whichever they are [1, with none 0]; not "
            "with students."
        ),
    ] = None
    p_th: Annotated[
        float | None,
        msgspec.Meta(
            description="students: the probability that all workers of a group fail is at most "
            "this [0.02].",
        ),
    ] = None
    outage: Annotated[
        float | None,
        msgspec.Meta(
            description="students: the probability that a worker that declares none does not "
            "answer, where the site has observed none either [0.1].",
        ),
    ] = None
    objective: Annotated[
        Literal["guaranteed", "expected", "best"] | None,
        msgspec.Meta(
            description="students: which latency is to be least: of the slowest worker of a "
            "group, of the first answer on average, or of the fastest [guaranteed].",
        ),
    ] = None
    network: Annotated[
        tuple[str, ...],
        msgspec.Meta(
            description="students: a network to choose from, such as conv-2-32, wrn-16-1 or "
            "mobile-1-1-s2, several times for several [those that suit the section's input].",
            extra={"metavar": "KIND-DEPTH-WIDTH"},
        ),
    ] = ()
    data: Annotated[
        str,
        msgspec.Meta(
            description="students: the data set to learn from [the bundle's, if rendered].",
            extra={"metavar": "NAME[:PATH]"},
        ),
    ] = ""
    steps: Annotated[int | None, msgspec.Meta(description="students: training steps [1500].")] = (
        None
    )
    edge: Annotated[str, msgspec.Meta(description="Edge whose section is shared [the lead].")] = ""
    layer: Annotated[
        str, msgspec.Meta(description="Layer to share [the heaviest]; not with students.")
    ] = ""
    seed: Annotated[
        int, msgspec.Meta(description="Seed of the code's coefficients, or of the training.")
    ] = 0
    for_s: Annotated[
        float, msgspec.Meta(description="Listen so long for nodes that lend, at most.")
    ] = 3.0
    json: Annotated[bool, msgspec.Meta(description="Print one JSON object.")] = False

    def __post_init__(self) -> None:
        if self.redundancy not in list_redundancies():
            raise ConfigError(
                f"--redundancy {self.redundancy!r}: expected one of "
                f"{', '.join(list_redundancies())}"
            )
        if self.workers == "announced":
            if not 0 < self.for_s < 3600:
                raise ConfigError(f"--for-s {self.for_s}: expected above 0, under an hour")
        else:
            parse_workers(self.workers)


PARAMETERS = [
    *(option for option in list_site_options() if option.name != "config"),
    *schema_options(PlanOptions, PREFIX),
]


@click.command(epilog=EPILOG, params=PARAMETERS)
def plan(config: str | None, **flags: Any) -> None:
    """Plan which workers compute which pieces of a section, and write the pieces."""
    with exit_codes():
        broker_flags = {key: flags.pop(key) for key in SITE_KEYS if key in flags}
        options = read_config(
            PlanOptions,
            flags,
            os.environ,
            config,
            others=ObserverSettings.__struct_fields__,
            prefix=PREFIX,
        )
        bundle = Path(options.bundle)
        out = Path(options.out) if options.out else None
        if options.workers == "announced":
            settings = read_observer_settings(broker_flags, config)
            profiles = find_profiles(settings, options.for_s, read_manifest(bundle)[1])
            leveled = levels_speeds(options.redundancy)
            devices = level_speeds(profiles) if leveled else profiles
            for measured, device in zip(profiles, devices, strict=True):
                speed = f"{measured.flops_per_s / 1e9:.1f} GFLOP/s at its start"
                power = f": power {device.flops_per_s / UNIT_FLOPS_PER_S:g}" if leveled else ""
                print_note(f"{device.name} announces {speed}{power}")
        else:
            devices = parse_workers(options.workers)
        request = PlanRequest(
            options.redundancy,
            devices,
            options.tolerate,
            options.edge,
            options.layer,
            options.seed,
            p_th=options.p_th,
            outage=options.outage,
            objective=options.objective or "",
            network=options.network,
            data=options.data,
            steps=options.steps,
        )
        made = plan_bundle(bundle, out, request)
        room = find_room(made.room)
        report = {"plan": made.id, **room.summarize(made)}
        if options.json:
            click.echo(json.dumps(report))
        else:
            click.echo(f"plan {made.id}: " + "\n".join(room.format_summary(report)))
            click.echo(
                f"Copy {out or bundle / DIRECTORY} to every node with the bundle; edges and "
                "workers that run by an earlier plan change to it without a restart.",
                err=True,
            )


def find_profiles(
    settings: ObserverSettings, for_s: float, bundle: str
) -> tuple[DeviceProfile, ...]:
    """Find the profiles of the online nodes that lend; LinkError without a broker."""
    with observe_site(settings) as observed:
        observed.listen(for_s)
        offers = observed.find_offers()
        others = {name for name in offers if observed.find_bundle(name) != bundle}
        for name in sorted(others):
            print_note(f"{name} has bundle {observed.find_bundle(name)}, not {bundle}: left out")
        workers = {name: observed.find_worker(name) for name in offers}
    profiles = {
        name: add_outage(offer.profile, workers[name])
        for name, offer in offers.items()
        if name not in others and offer.profile is not None
    }
    if not profiles:
        raise InfeasiblePlanError(
            f"no node lends at {settings.broker}, site {settings.site}; start workers with "
            "`python -m device_app --lend on`, or name them with --workers"
        )
    return tuple(profiles[name] for name in sorted(profiles))


def add_outage(profile: DeviceProfile, worker: WorkerState | None) -> DeviceProfile:
    """The profile with the outage probability that an edge of the site has observed, if it has."""
    if worker is None or worker.observed_s < MIN_OBSERVED_S:
        return profile
    outage = estimate_outage(worker.outage, worker.observed_s)
    hours = worker.observed_s / 3600
    print_note(f"{profile.name}: an outage of {outage:.2g}, from {hours:.2g} h of observation")
    return msgspec.structs.replace(profile, outage_probability=outage)


def level_speeds(profiles: Sequence[DeviceProfile]) -> tuple[DeviceProfile, ...]:
    """Round the speeds down to whole multiples of the slowest, at most MAX_RATIO.

    The measured speeds of equal machines differ by less than a factor of two when some are busy:
    these count as equal.
    """
    slowest = min(profile.flops_per_s for profile in profiles)
    return tuple(
        msgspec.structs.replace(
            profile,
            flops_per_s=min(int(profile.flops_per_s / slowest), MAX_RATIO) * UNIT_FLOPS_PER_S,
        )
        for profile in profiles
    )
