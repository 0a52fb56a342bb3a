"""`ddnn rollout`: changes the bundle of a site while it runs."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import msgspec

from ddnn.adapters.command import exit_codes, schema_options
from ddnn.adapters.litert import LiteRtSection
from ddnn.cli.machine_driver import MachineDriver
from ddnn.cli.observer import (
    SITE_KEYS,
    ObserverSettings,
    make_printable_reason,
    read_observer_settings,
)
from ddnn.cli.output import print_report
from ddnn.errors import ConfigError, LinkError
from ddnn.exits.hierarchy import CLOUD
from ddnn.exits.probation import Probation
from ddnn.exits.trial import try_sample
from ddnn.local_site.progress import print_note, show_progress
from ddnn.machines.deployer import CONFIRM_S, LEAD_S, LISTEN_S, Deployer, State
from ddnn.protocol.machine import Now
from ddnn.protocol.rollout_messages import PART_BYTES, BundleOrder
from ddnn.protocol.topics import EVERYWHERE
from ddnn.runtime.bundle import Bundle, load_bundle
from ddnn.runtime.library import pack_bundle
from ddnn.runtime.settings import NodeSettings

REDRAW_S = 0.25
LINE_EVERY_S = 5.0

EPILOG = """\b
The bundle travels through the broker, which retains it. Each node checks it, computes its golden
outputs and one sample, and keeps using the bundle before until all nodes change at one sample. If a
node cannot use the bundle, nothing changes. A node that is away changes when it is back.

\b
With --watch-minutes the site goes back to the bundle before where answers with known truth are
right less often than the bundle measured, most answers are degraded, or cameras behave otherwise
than on its validation data.

\b
Examples:
  ddnn rollout bundles/new --site-file laptop.site
  ddnn rollout bundles/new --broker-host edge.lan --insecure --json
  ddnn rollout bundles/new --site-file laptop.site --watch-minutes 10
  ddnn rollout bundles/old --site-file laptop.site      back: nodes have it on their disks

\b
With site files it needs one of role deployer: `ddnn site add-node laptop --role deployer`.
"""

SITE_OPTIONS = [o for o in schema_options(ObserverSettings) if o.name in (*SITE_KEYS, "insecure")]


@click.command(epilog=EPILOG, params=SITE_OPTIONS)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--wait-s",
    default=120.0,
    show_default=True,
    type=click.FloatRange(1.0, 86_400.0),
    help="How long nodes that are online may take to be ready.",
)
@click.option(
    "--watch-minutes",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0.0, 1440.0),
    help="Watch the answers for so long after the change, and go back where they are worse than "
    "the bundle's figures promise.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def rollout(bundle: Path, wait_s: float, watch_minutes: float, as_json: bool, **keys: Any) -> None:
    """Change a running site to another bundle."""
    with exit_codes():
        settings = read_observer_settings(keys, keys.pop("config"))
        NodeSettings._check_security(settings)  # it commands
        if settings.site == EVERYWHERE:
            raise ConfigError(f"--site {EVERYWHERE}; name the site, one at a time")
        loaded = load_bundle(bundle, LiteRtSection)
        deployer = make_deployer(bundle, loaded, settings.site, wait_s)
        begun_s = time.monotonic()
        deploy(deployer, settings, wait_s)
        report = make_report(deployer, time.monotonic() - begun_s)
        wrong = ""
        if deployer.state is State.DONE and watch_minutes:
            probation = make_probation(loaded, settings.site, 60 * watch_minutes)
            try:
                watch(probation, settings)
            except LinkError as away:
                wrong = f"it is in use, and was not watched: {away}"
            else:
                wrong = probation.reason
            report["watched"] = make_watch_report(probation)
            if probation.reason and deployer.before != loaded.id:
                back = deployer.make_return()
                wrong += f"; {_go_back(back, settings, wait_s, deployer.before)}"
                report["returned"] = make_report(back, time.monotonic() - begun_s)
        print_report(report, as_json)
        stays = deployer.state is not State.DONE or "returned" in report
        if stays and deployer.before and deployer.away:
            print_note(
                f"{', '.join(deployer.away)} were away: where one of them lacks bundle "
                f"{deployer.before}, roll that out again, since this took its parts' place"
            )
        if deployer.state is not State.DONE:
            follows = "see `ddnn status`" if deployer.since is not None else "nothing has changed"
            error = ConfigError if deployer.is_refused else LinkError
            raise error(f"{make_printable_reason(deployer.reason) or 'interrupted'}; {follows}")
        if wrong:
            raise ConfigError(f"bundle {loaded.id}: {wrong}")


def _go_back(back: Deployer, settings: ObserverSettings, wait_s: float, before: str) -> str:
    """Change to the bundle before; what became of that."""
    try:
        deploy(back, settings, wait_s)
    except LinkError as error:
        return f"could not go back to bundle {before}: {error}"
    if back.state is State.DONE:
        return f"went back to bundle {before}"
    return f"could not go back: {make_printable_reason(back.reason)}"


def make_deployer(path: Path, bundle: Bundle, site: str, wait_s: float) -> Deployer:
    """Try a sample with the bundle at `path` and pack it. Raises ConfigError."""
    try_sample(bundle.manifest, bundle.sections)
    archive = pack_bundle(path)
    parts = [archive[i : i + PART_BYTES] for i in range(0, len(archive), PART_BYTES)]
    order = BundleOrder(bundle.id, hashlib.sha256(archive).hexdigest(), len(archive))
    hierarchy = bundle.manifest.hierarchy
    nodes = [CLOUD, *(group.id for group in hierarchy.edges), *hierarchy.devices]
    return Deployer(site, order, parts, nodes, hierarchy.lead, wait_s=wait_s)


def make_probation(bundle: Bundle, site: str, watch_s: float) -> Probation:
    manifest = bundle.manifest
    return Probation(site, bundle.id, manifest.hierarchy.lead, manifest.behaviour, watch_s)


def deploy(deployer: Deployer, settings: ObserverSettings, wait_s: float) -> None:
    """Run the roll-out to its end, and show how far it is."""
    with open_view(deployer) as show:
        run(deployer, settings, show, 2 * LISTEN_S + wait_s + LEAD_S + 2 * CONFIRM_S)


def watch(probation: Probation, settings: ObserverSettings) -> None:
    """Watch the answers to the end of the probation, with a progress bar."""
    begun_s = time.monotonic()
    with show_progress() as progress:

        def show() -> None:
            done_s = min(time.monotonic() - begun_s, probation.watch_s)
            figures = probation.figures
            text = f"watching, {figures.answers} answers, {figures.degraded} degraded"
            progress(text, round(done_s), round(probation.watch_s))

        run(probation, settings, show, probation.watch_s + CONFIRM_S)


def run(
    machine: Deployer | Probation,
    settings: ObserverSettings,
    show: Callable[[], None],
    limit_s: float,
) -> None:
    """Run a machine to its end. Ctrl-C cancels a roll-out where that is possible."""
    driver = MachineDriver(settings, machine)
    try:
        driver.connect()
        try:
            driver.run(lambda: machine.is_over, show, limit_s)
        except KeyboardInterrupt:
            if not isinstance(machine, Deployer):
                raise
            driver.perform(machine.cancel(Now(time.monotonic(), time.time())))
        driver.run(lambda: False, lambda: None, 0.5)  # the last messages leave
    finally:
        driver.close()


def make_watch_report(probation: Probation) -> dict[str, Any]:
    """What the answers were like after the change."""
    figures = probation.figures
    return {
        "state": probation.state.name.lower(),
        **msgspec.structs.asdict(figures),
        "expected": round(figures.expected / figures.known, 4) if figures.known else None,
        "reason": probation.reason,
    }


def make_report(deployer: Deployer, took_s: float) -> dict[str, Any]:
    """The figures of the roll-out."""
    return {
        "state": deployer.state.name.lower(),
        "bundle": deployer.order.bundle,
        "before": deployer.before,
        "first_sample": deployer.since,
        "nodes": {node: deployer.describe(node) for node in deployer.nodes},
        "away": deployer.away,
        "archive_bytes": deployer.order.size_bytes,
        "took_s": round(took_s, 1),
        "reason": make_printable_reason(deployer.reason),
    }


@contextmanager
def open_view(deployer: Deployer) -> Iterator[Callable[[], None]]:
    """Yield a function that shows each node's state: a table, or a line now and then."""
    drawn_s = -LINE_EVERY_S
    if not sys.stderr.isatty() or find_spec("rich") is None:

        def print_line() -> None:
            nonlocal drawn_s
            if time.monotonic() - drawn_s >= LINE_EVERY_S:
                drawn_s = time.monotonic()
                click.echo(f"ddnn: {summarize(deployer)}", err=True)

        yield print_line
        return
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    def draw() -> Table:
        table = Table(title=summarize(deployer))
        table.add_column("node")
        table.add_column("bundle in use")
        table.add_column("state")
        for node in deployer.nodes:
            state = deployer.states.get(node)
            table.add_row(node, state.in_use if state else "-", deployer.describe(node))
        return table

    with Live(draw(), console=Console(stderr=True), auto_refresh=False) as live:

        def redraw() -> None:
            nonlocal drawn_s
            if time.monotonic() - drawn_s >= REDRAW_S:
                drawn_s = time.monotonic()
                live.update(draw(), refresh=True)

        yield redraw
        live.update(draw(), refresh=True)


def summarize(deployer: Deployer) -> str:
    """One line: what the roll-out does, and how many nodes are how far."""
    counts: dict[str, int] = {}
    for node in deployer.nodes:
        state = deployer.describe(node)
        counts[state] = counts.get(state, 0) + 1
    listed = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return f"bundle {deployer.order.bundle}: {deployer.state.name.lower()} ({listed})"
