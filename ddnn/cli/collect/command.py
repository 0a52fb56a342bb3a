"""`ddnn collect`: the command."""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec

from ddnn.adapters.command import exit_codes, schema_options
from ddnn.cli.collect.driver import CollectorDriver
from ddnn.cli.collect.keys import ReadKey, open_keyboard
from ddnn.cli.collect.view import make_balance, open_view
from ddnn.cli.observer import (
    SITE_KEYS,
    ObserverSettings,
    make_printable_reason,
    read_observer_settings,
)
from ddnn.cli.output import print_report
from ddnn.data.recordings import UNLABELLED, RecordingStore, require_label
from ddnn.errors import ConfigError, LinkError
from ddnn.machines.picture_collector import Format, PictureCollector, State
from ddnn.protocol.record_messages import MAX_RECORDING_S, MAX_SIDE_PX
from ddnn.runtime.service import find_ddnn_version
from ddnn.runtime.settings import NodeSettings

ASK_S = 2.5  # in which devices usually answer whether they take part
ASK_LIMIT_S = 10.0
FOREVER_S = 86400.0

EPILOG = """\b
Each device must allow it: `device_app … --allow-recording on`. While it records, every log and the
page say so. Devices take the pictures of the same ticks, keep them until they are on disk here, and
send them later where they were away.

\b
Examples:
  ddnn collect --out photos --label person --seconds 60
  ddnn collect --out photos --label nobody --samples 100 --every-s 1
  ddnn collect --out photos --label person --label nobody       keys 1 and 2 begin a burst
  ddnn collect --out photos --site-file laptop.site --seconds 60 --json

\b
Without --label pictures are "unlabelled": `ddnn label photos` gives them their classes.
"""


class CollectOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of `ddnn collect` besides those of the site."""

    out: Annotated[
        str,
        msgspec.Meta(description="Directory of the pictures; a new one, or one to add to."),
    ]
    label: Annotated[
        tuple[str, ...],
        msgspec.Meta(description="Class of the pictures; several times: chosen by keys."),
    ] = ()
    seconds: Annotated[
        float | None,
        msgspec.Meta(description="How long to record [until Ctrl-C, at most an hour]."),
    ] = None
    samples: Annotated[
        int | None, msgspec.Meta(description="How many samples to record, instead of --seconds.")
    ] = None
    every_s: Annotated[
        float,
        msgspec.Meta(description="Time between two samples.", gt=0, le=MAX_RECORDING_S),
    ] = 0.5
    max_side: Annotated[
        int,
        msgspec.Meta(
            description="Larger pictures are scaled down to so many pixels.", ge=32, le=MAX_SIDE_PX
        ),
    ] = 1280
    quality: Annotated[int, msgspec.Meta(description="Of the JPEG files.", ge=1, le=95)] = 90
    max_mib: Annotated[int, msgspec.Meta(description="Of all pictures of this run.", ge=1)] = 1024
    wait_s: Annotated[
        float,
        msgspec.Meta(
            description="How long to wait at the end for pictures of devices that are away.",
            ge=0,
            le=MAX_RECORDING_S,
        ),
    ] = 30.0
    distinct: Annotated[
        int,
        msgspec.Meta(
            description="Remove a sample whose pictures differ from the one before in at most so "
            "many of 256 bits, for every camera; -1 removes none.",
            ge=-1,
            le=256,
        ),
    ] = 2
    json: Annotated[bool, msgspec.Meta(description="Print one JSON object.")] = False

    def __post_init__(self) -> None:
        for label in self.label:
            require_label(label)
        if self.seconds is not None and self.samples is not None:
            raise ConfigError("--seconds and --samples; expected one of them")
        if self.seconds is not None and not 0 < self.seconds <= MAX_RECORDING_S:
            raise ConfigError(f"--seconds {self.seconds}: expected 1 to {MAX_RECORDING_S:.0f}")
        if self.samples is not None and self.samples < 1:
            raise ConfigError(f"--samples {self.samples}: expected at least 1")
        if len(self.label) > 9:
            raise ConfigError(f"--label: {len(self.label)} classes; keys 1 to 9 choose among nine")
        if len(self.label) > 1 and (self.seconds is not None or self.samples is not None):
            raise ConfigError(
                "several --label are chosen by keys while recording; with --seconds or --samples "
                "expected one"
            )


OWN_OPTIONS = [o for o in schema_options(CollectOptions) if o.name != "config"]


SITE_OPTIONS = [o for o in schema_options(ObserverSettings) if o.name in (*SITE_KEYS, "insecure")]


@click.command(epilog=EPILOG, params=[*OWN_OPTIONS, *SITE_OPTIONS])
def collect(**keys: Any) -> None:
    """Record pictures of a site's cameras to train with."""
    with exit_codes():
        own = {str(option.name): keys.pop(str(option.name)) for option in OWN_OPTIONS}
        given = {key: value for key, value in own.items() if value not in (None, ())}
        try:
            options = msgspec.convert(given, CollectOptions, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{error}; see `ddnn collect --help`") from None
        if len(options.label) > 1 and not sys.stdin.isatty():
            raise ConfigError(
                "several --label are chosen by keys, and standard input is no terminal; give one "
                "--label with --seconds or --samples"
            )
        file = keys.pop("config")
        settings = read_observer_settings(keys, file)
        NodeSettings._check_security(settings)  # it commands, and gets pictures
        report = Recording(options, settings).run()
        print_report(report, options.json)
        if report["failure"]:
            raise ConfigError(
                f"{report['failure']}; the pictures counted above are on disk; make room and "
                "record again into the same directory"
            )


@dataclass
class Recording:
    """One run of the command."""

    options: CollectOptions
    settings: ObserverSettings

    def __post_init__(self) -> None:
        options = self.options
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        self.session = f"{stamp}-{secrets.token_hex(2)}"
        self.store = RecordingStore(
            Path(options.out), self.session, self.settings.site, find_ddnn_version()
        )
        self.collector = PictureCollector(
            self.settings.site,
            self.session,
            self.store.keep,
            Format(options.every_s, options.max_side, options.quality),
            max_bytes=options.max_mib << 20,
            drain_s=options.wait_s,
        )
        self.labels = options.label or (UNLABELLED,)
        self.label = ""

    def run(self) -> dict[str, Any]:
        """Ask, record, wait for what is missing; returns the report."""
        driver = CollectorDriver(self.settings, self.collector)
        try:
            driver.connect()
            self._ask(driver)
            if not driver.has_edge:
                driver.serve_time()
                driver.run(lambda: False, lambda: None, ASK_S)  # devices learn the time
            self._check_devices()
            with open_view(self.collector, self.store, quiet=False) as show:
                with contextlib.suppress(KeyboardInterrupt):
                    self._record(driver, show)
                self._finish(driver, show)
        finally:
            driver.close()
        return self._make_report()

    def _ask(self, driver: CollectorDriver) -> None:
        """Wait until every online device has said whether it takes part."""
        begun_s = time.monotonic()

        def is_over() -> bool:
            online = [d for d in self.collector.devices.values() if d.is_online]
            is_answered = all(device.state is not None for device in online)
            return time.monotonic() - begun_s > ASK_S and is_answered

        driver.run(is_over, lambda: None, ASK_LIMIT_S)

    def _check_devices(self) -> None:
        """Raise LinkError or ConfigError where no device takes part, or their ticks differ."""
        devices = self.collector.devices
        states = {node: device.state for node, device in devices.items() if device.state}
        refused = {n: state.reason for n, state in states.items() if state.state == "refused"}
        refused |= {
            node: "it reports no period of its ticks"
            for node, state in states.items()
            if state.state != "refused" and state.period_s <= 0
        }
        periods = {node: s.period_s for node, s in states.items() if node not in refused}
        for node, reason in refused.items():
            click.echo(f"ddnn: {node} takes no part: {make_printable_reason(reason)}", err=True)
        if refused and not periods:
            raise ConfigError("no device allows recording: start them with --allow-recording on")
        if not periods:
            online = ", ".join(node for node, device in devices.items() if device.is_online)
            raise LinkError(
                f"no device of site {self.settings.site} answered"
                + (f" ({online} are online, but do not know recordings)" if online else "")
                + "; start device_app with --allow-recording on, the same --site and broker"
            )
        if len({round(period_s, 9) for period_s in periods.values()}) > 1:
            rates = ", ".join(f"{node} {1 / s:g}" for node, s in sorted(periods.items()))
            raise ConfigError(
                f"devices have different --rate-hz ({rates}), so that their pictures show "
                "different instants; start them with the same one"
            )
        self.period_s = next(iter(periods.values()))
        away = [n for n, device in devices.items() if n not in states and not device.is_online]
        if away:
            click.echo(f"ddnn: away: {', '.join(sorted(away))}", err=True)

    # -------------------------------------------------------------------- recording

    def _begin(self, driver: CollectorDriver, label: str, for_s: float) -> None:
        now = driver.read_time()
        effects = self.collector.begin(for_s, now)
        self.store.begin_burst(
            self.collector.burst, label, self.collector.bounds_s, self.options.every_s
        )
        self.label = label
        driver.perform(effects)

    def _end(self, driver: CollectorDriver) -> None:
        driver.perform(self.collector.end(driver.read_time()))

    def _find_duration_s(self) -> float:
        """The duration of a burst; that of --samples is a whole number of ticks."""
        if self.options.samples is None:
            return self.options.seconds or MAX_RECORDING_S
        ticks = max(1, round(self.options.every_s / self.period_s))
        for_s = self.options.samples * ticks * self.period_s
        if for_s > MAX_RECORDING_S:
            most = int(MAX_RECORDING_S / (ticks * self.period_s))
            raise ConfigError(
                f"--samples {self.options.samples} take {for_s:.0f} s, and a device records for at "
                f"most {MAX_RECORDING_S:.0f} s; expected at most {most}, or a shorter --every-s"
            )
        return for_s

    def _record(self, driver: CollectorDriver, show: Callable[..., None]) -> None:
        by_keys = len(self.labels) > 1
        if not by_keys:
            self._begin(driver, self.labels[0], self._find_duration_s())
        with open_keyboard() as read_key:
            while by_keys or self.collector.state is State.RECORDING:
                driver.step()
                show(*self._describe(driver, by_keys))
                if self.collector.failure or self.collector.counts["pictures_over_limit"]:
                    return
                if by_keys and self._follow_key(driver, read_key):
                    return

    def _follow_key(self, driver: CollectorDriver, read_key: ReadKey) -> bool:
        """Do what the key says; True where that is the end."""
        key = read_key()
        if key.isdecimal() and 1 <= int(key) <= len(self.labels):
            self._begin(driver, self.labels[int(key) - 1], MAX_RECORDING_S)
        elif key == " ":
            self._end(driver)
        return key in ("q", "\x1b")

    def _describe(self, driver: CollectorDriver, by_keys: bool) -> tuple[str, ...]:
        """The title of the view, and its keys."""
        if self.collector.state is not State.RECORDING:
            title = "paused"
        else:
            left_s = self.collector.bounds_s[1] - driver.read_time().wall_s
            title = f"RECORDING {self.label}"
            if self.options.seconds or self.options.samples:
                title += f", {max(0.0, left_s):.0f} s left"
        if not by_keys:
            return (title,)
        named = "  ".join(f"{number} {name}" for number, name in enumerate(self.labels, 1))
        return title, f"keys: {named}  space pauses  q ends"

    def _finish(self, driver: CollectorDriver, show: Callable[..., None]) -> None:
        try:
            driver.perform(self.collector.finish(driver.read_time()))
            title = "waiting for pictures that devices still have"
            driver.run(
                lambda: self.collector.state is State.DONE,
                lambda: show(title, "Ctrl-C ends without them"),
                FOREVER_S,
            )
        except KeyboardInterrupt:
            click.echo("ddnn: ended without the pictures that devices still have", err=True)
        states = {n: d.state for n, d in self.collector.devices.items() if d.state and d.kept}
        self.removed = self.store.finish(states, self.options.distinct)

    def _make_report(self) -> dict[str, Any]:
        collector = self.collector
        devices = sorted(collector.devices.items())
        for line in make_balance(self.store):
            click.echo(f"ddnn: {line}", err=True)
        return {
            "out": self.options.out,
            "session": self.session,
            "samples": collector.count_samples() - self.removed,
            "near_duplicates_removed": self.removed,
            "pictures": {node: len(device.kept) for node, device in devices if device.kept},
            "lost": {n: d.state.dropped for n, d in devices if d.state and d.state.dropped},
            "not_sent": {n: d.state.waiting for n, d in devices if d.state and d.state.waiting},
            "broken": collector.counts["pictures_broken"],
            "refused": [n for n, d in devices if d.state and d.state.state == "refused"],
            "bytes": collector.kept_bytes,
            "classes": {
                label: sum(cameras.values())
                for label, cameras in sorted(self.store.count_classes().items())
            },
            "ended_because": collector.ended_because,
            "failure": collector.failure,
        }
