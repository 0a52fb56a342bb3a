"""Sites and brokers that a benchmark runs on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.harness.processes import temporary_directory
from ddnn.adapters import broker as brokers
from ddnn.adapters.litert import LiteRtSection
from ddnn.local_site.site import Site, SiteConfig
from ddnn.runtime.bundle import load_bundle, write_manifest
from ddnn.runtime.fleet import Fleet

EXIT_ALWAYS, EXIT_NEVER = 1.0, 0.0  # thresholds: at the first exit, at the last


def write_thresholds(
    config: SiteConfig, threshold: float | dict[str, float], out: Path
) -> SiteConfig:
    """A site with other thresholds in its bundle, written to `out`. A number: of all exits."""
    out.mkdir()
    for file in config.bundle.iterdir():
        if file.is_file():
            (out / file.name).write_bytes(file.read_bytes())
    manifest = load_bundle(config.bundle, LiteRtSection).manifest
    if not isinstance(threshold, dict):
        threshold = dict.fromkeys(manifest.thresholds, threshold)
    manifest = msgspec.structs.replace(manifest, thresholds=threshold)
    write_manifest(out, manifest)
    return replace(config, manifest=manifest, bundle=out)


@contextmanager
def running_site(
    config: SiteConfig,
    threshold: float | dict[str, float] | None = None,
    prepare: Callable[[Site], None] = lambda site: None,
    **options: Any,
) -> Iterator[Site]:
    """A site on Mosquitto, all of whose nodes are online.

    prepare: called before any process starts. options: of `Site`.
    """
    with ExitStack() as stack:
        state = stack.enter_context(temporary_directory())
        if threshold is not None:
            config = write_thresholds(config, threshold, state / "bundle")
        site = Site(config, "mosquitto", state, http_port=brokers.free_port(), **options)
        stack.callback(site.close)
        prepare(site)
        site.start()
        yield site


@contextmanager
def running_broker() -> Iterator[tuple[Fleet, int, Path]]:
    """Mosquitto alone as the node "broker": the processes to add others to, its port, a directory.

    All processes are ended at the end.
    """
    with ExitStack() as stack:
        state = stack.enter_context(temporary_directory())
        fleet = Fleet(state / "logs")
        stack.callback(fleet.close)
        port = brokers.free_port()
        fleet.start("broker", brokers.command("mosquitto", port, state))
        brokers.wait_until_listening(port)
        yield fleet, port, state
