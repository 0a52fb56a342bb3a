"""`ddnn demo`: the whole hierarchy as real processes on this machine."""

from __future__ import annotations

import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ddnn.adapters import broker as brokers
from ddnn.adapters.command import app_command
from ddnn.cli.demo_options import DemoOptions
from ddnn.cli.live import show_live_view
from ddnn.cli.output import print_report
from ddnn.local_site.bundles import parse_thresholds, prepare_site, share_layer
from ddnn.local_site.interrupts import end_on_signals
from ddnn.local_site.progress import print_note
from ddnn.local_site.run import parse_action, run_samples
from ddnn.local_site.site import Site, SiteConfig

PAGE_PORT = 8080
EPILOG = """\b
Examples:
  ddnn demo                                   live, until Ctrl-C
  ddnn demo --headless --samples 200 --json   one JSON object
  ddnn demo --headless --samples 200 --kill cam3@100 --restart cam3@150
  ddnn demo --redundancy coded --workers 6 --tolerate 2 --threshold local=0 --kill worker1@40
  ddnn demo --redundancy students --workers 8 --threshold local=0 --kill worker3@50
  ddnn demo --redundancy students --workers 8 --data eth80:eth80.npz
"""


def run(options: DemoOptions) -> None:
    report = run_demo(options)
    if options.json or options.headless:
        print_report(report, options.json)


demo = app_command(
    DemoOptions,
    run,
    name="demo",
    description="Run broker, cloud, edge and cameras on this machine, and watch them answer.",
    epilog=EPILOG,
    prefix="DDNN_DEMO_",
)


def run_demo(options: DemoOptions) -> dict[str, Any]:
    """Run the demo, and return the report that --json prints."""
    kind = brokers.choose(options.broker)
    config = _make_config(options)
    actions = [
        *(parse_action("kill", text, config.nodes) for text in options.kill),
        *(parse_action("restart", text, config.nodes) for text in options.restart),
    ]
    with ExitStack() as stack:
        stack.enter_context(end_on_signals("interrupted before all nodes were up"))
        site = Site(
            config,
            kind,
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ddnn-demo-"))),
            rate_hz=options.rate_hz,
            deadline_s=options.deadline_s,
            window_s=options.window_s,
            broker_port=options.broker_port or brokers.free_port(),
            http_port=options.http_port or _choose_page_port(),
            seed=options.seed,
        )
        stack.callback(site.close)
        site.start()
        print_note(
            f"all nodes are up; page on {site.page} (loopback only, so it asks for no password)"
        )
        if config.workers and config.thresholds is None:
            print_note(
                "only samples that reach the edge use its workers; with --threshold local=0 all do"
            )
        if options.headless:
            return run_samples(site, options.samples or 100, actions)
        with show_live_view(config.manifest, site.page, site.fleet, site.watcher) as refresh:
            return run_samples(site, options.samples, actions, refresh)


def _make_config(options: DemoOptions) -> SiteConfig:
    shares = options.redundancy != "off"
    config = prepare_site(
        options.data,
        options.devices,
        options.configuration,
        Path(options.bundle) if options.bundle else None,
        options.seed,
        cut=shares,
    )
    if shares:
        workers = 6 if options.workers is None else options.workers
        share_layer(
            config, options.redundancy, workers, options.tolerate, options.layer, options.data
        )
    config.thresholds = parse_thresholds(config, options.threshold)
    config.audit_share = options.audit_share
    return config


def _choose_page_port() -> int:
    """Choose PAGE_PORT where it is free, else any free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PAGE_PORT))
        except OSError:
            return brokers.free_port()
    return PAGE_PORT
