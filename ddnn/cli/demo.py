"""`ddnn demo`: the whole hierarchy as real processes on this machine."""

from __future__ import annotations

import json
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from ddnn.adapters import broker as brokers
from ddnn.adapters.command import exit_codes
from ddnn.cli.live import live_view
from ddnn.errors import ConfigError, DdnnError
from ddnn.exits.hierarchy import CONFIGURATIONS
from ddnn.local_site.bundles import parse_thresholds, prepare_site, share_layer
from ddnn.local_site.planning import REDUNDANCIES
from ddnn.local_site.progress import print_note
from ddnn.local_site.run import parse_action, run_samples
from ddnn.local_site.site import Site

EPILOG = """\b
Examples:
  ddnn demo                                   live, until Ctrl-C
  ddnn demo --headless --samples 200 --json   one JSON object
  ddnn demo --headless --samples 200 --kill cam3@100 --restart cam3@150
  ddnn demo --redundancy coded --workers 6 --tolerate 2 --threshold local=0 --kill worker1@40
"""


@click.command(epilog=EPILOG)
@click.option("--data", default="scenes", show_default=True, help="NAME[:PATH] of the data set.")
@click.option("--devices", default=6, show_default=True, help="How many cameras.")
@click.option(
    "--configuration",
    type=click.Choice(CONFIGURATIONS),
    default="e",
    show_default=True,
    help="The paper's Fig. 2, a to f.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    default=None,
    help="Bundle to run; by default one is trained once and kept.",
)
@click.option(
    "--broker",
    type=click.Choice(["auto", "mosquitto", "embedded"]),
    default="auto",
    show_default=True,
    help="auto: Mosquitto if it is installed.",
)
@click.option("--headless", is_flag=True, help="No live view; ends after --samples.")
@click.option("--samples", type=int, default=None, help="End after so many samples [headless: 100]")
@click.option("--rate", "rate_hz", default=10.0, show_default=True, help="Samples per second.")
@click.option(
    "--kill",
    "kills",
    multiple=True,
    metavar="NODE@N",
    help="SIGKILL a node (cam1 …, worker1 …, edge, cloud, broker) after N samples.",
)
@click.option(
    "--restart",
    "restarts",
    multiple=True,
    metavar="NODE@N",
    help="Start a killed node again after N samples.",
)
@click.option(
    "--redundancy",
    type=click.Choice(["off", *REDUNDANCIES]),
    default="off",
    show_default=True,
    help="Share the edge's heavy layer among workers; see `ddnn plan`.",
)
@click.option(
    "--workers",
    default=None,
    type=int,
    help="How many workers share the layer: worker1 … [6 with --redundancy]",
)
@click.option(
    "--tolerate", default=None, type=int, help="So many of them may vanish [1, of none 0]"
)
@click.option("--layer", default="", help="Layer to share [the heaviest]")
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="EXIT=T",
    help="Another threshold than the bundle's: local=0 sends every sample to the edge.",
)
@click.option("--deadline-s", default=1.0, show_default=True, help="Deadline of a sample.")
@click.option("--window-s", default=0.12, show_default=True, help="Wait for members per stage.")
@click.option("--broker-port", default=None, type=int, help="Port of the broker [a free one]")
@click.option("--http-port", default=None, type=int, help="Port of the page [8080, or a free one]")
@click.option("--seed", default=0, show_default=True, help="Seed of data and training.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def demo(**options: Any) -> None:
    """Run broker, cloud, edge and cameras on this machine, and watch them answer."""
    with exit_codes():
        report = run_demo(**options)
        if options["as_json"]:
            click.echo(json.dumps(report))
        elif options["headless"]:
            for key, value in report.items():
                click.echo(f"{key:28} {value}")


def run_demo(
    *,
    data: str,
    devices: int,
    configuration: Any,
    bundle: Path | None,
    broker: str,
    headless: bool,
    samples: int | None,
    rate_hz: float,
    kills: tuple[str, ...],
    restarts: tuple[str, ...],
    deadline_s: float,
    window_s: float,
    broker_port: int | None,
    http_port: int | None,
    seed: int,
    redundancy: str = "off",
    workers: int | None = None,
    tolerate: int | None = None,
    layer: str = "",
    thresholds: tuple[str, ...] = (),
    as_json: bool = False,
) -> dict[str, Any]:
    """See `demo`; the report that --json prints."""
    kind = brokers.choose(broker)
    if headless and samples is None:
        samples = 100
    if samples is not None and samples < 1:
        raise ConfigError(f"--samples {samples}: expected 1 or more")
    if not 0 < rate_hz <= 1000:
        raise ConfigError(f"--rate {rate_hz}: expected above 0, up to 1000 per second")
    if redundancy == "off" and (workers, tolerate, layer) != (None, None, ""):
        raise ConfigError("--workers, --tolerate and --layer need --redundancy, such as coded")
    if redundancy != "off" and bundle is None and configuration in "abc":
        raise ConfigError(
            f"--configuration {configuration}: its edge has no section to share; use d, e or f"
        )
    config = prepare_site(data, devices, configuration, bundle, seed, cut=redundancy != "off")
    if redundancy != "off":
        share_layer(config, redundancy, 6 if workers is None else workers, tolerate, layer)
    config.thresholds = parse_thresholds(config, thresholds)
    actions = [
        *(parse_action("kill", text, config.nodes) for text in kills),
        *(parse_action("restart", text, config.nodes) for text in restarts),
    ]
    with ExitStack() as stack:
        stack.enter_context(_end_on_signals())
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddnn-demo-")))
        site = Site(
            config,
            kind,
            state,
            rate_hz=rate_hz,
            deadline_s=deadline_s,
            window_s=window_s,
            broker_port=broker_port or brokers.free_port(),
            http_port=http_port or (8080 if _is_port_free(8080) else brokers.free_port()),
        )
        stack.callback(site.close)
        site.start()
        print_note(f"all nodes are up; page on {site.page} (loopback only: it asks no password)")
        if config.workers and config.thresholds is None:
            print_note(
                "only samples that reach the edge use its workers; --threshold local=0: all do"
            )
        if headless:
            return run_samples(site, samples, actions)
        with live_view(config.manifest, site.page, site.fleet, site.watcher) as refresh:
            return run_samples(site, samples, actions, refresh)


def _is_port_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def _end_on_signals() -> Iterator[None]:
    """SIGTERM and a lost terminal end the demo as Ctrl-C does: no process is left behind."""

    def raise_interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, raise_interrupt) for number in numbers]
    try:
        yield
    except KeyboardInterrupt:
        raise DdnnError("interrupted before all nodes were up") from None
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
