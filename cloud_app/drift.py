"""Watches the sites for drift: compares their newest answers with the bundle's validation data."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from cloud_app.registry import ReportEvent
from cloud_app.store import Store
from cloud_app.views import BundleView
from ddnn.errors import LinkError
from ddnn.exits.drift import WINDOWS, Deviation, describe, find_deviations

log = logging.getLogger(__name__)

PERIOD_S = 30.0
DAY_S = 86_400.0
CAMERA_REMEDY = "was the camera moved, is it dirty, or in the dark?"
THINGS_REMEDY = "are there other things than on validation data? Record and label them"


class DriftWatch:
    """Keeps the newest deviations of each site, and reports an alarm once a day as an event.

    Its thread compares all sites every PERIOD_S; any thread may read.
    """

    def __init__(
        self,
        store: Store,
        read_bundle: Callable[[], BundleView],
        report: ReportEvent,
        clock: Callable[[], float],
    ) -> None:
        """read_bundle: the bundle in use. clock: the wall time of events."""
        self._store, self._read_bundle, self._report = store, read_bundle, report
        self._clock = clock
        self._found: dict[str, list[Deviation]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drift", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_s: float = 3.0) -> None:
        self._closing.set()
        self._thread.join(timeout_s)

    def read(self, site: str) -> list[Deviation]:
        """The deviations of a site; none where too few samples were seen."""
        return self._found.get(site, [])

    def compare(self) -> None:
        """Compare the newest answers of every site; LinkError where the database is away."""
        bundle = self._read_bundle()
        if bundle.behaviour is None:
            self._found = {}
            return
        found = {}
        for site in self._store.list_sites():
            seen = self._store.list_observations(max(WINDOWS), site, bundle.id)
            found[site] = find_deviations(bundle.behaviour, seen)
            for deviation in found[site]:
                if deviation.is_alarm:
                    self._report_alarm(site, bundle, deviation)
        self._found = found

    def _report_alarm(self, site: str, bundle: BundleView, deviation: Deviation) -> None:
        now_s = self._clock()
        key = f"drift-{deviation.voter}-{deviation.kind}-{now_s // DAY_S:.0f}"
        if deviation.voter in bundle.devices:
            text = f"drift: {describe(deviation)}: {CAMERA_REMEDY}"
            self._report(now_s, site, deviation.voter, text, key)
        else:
            text = f"drift: the {deviation.voter} exit {describe(deviation)}: {THINGS_REMEDY}"
            self._report(now_s, site, bundle.lead, text, key)

    def _run(self) -> None:
        while not self._closing.wait(PERIOD_S):
            try:
                self.compare()
            except LinkError as error:
                log.warning("drift is not compared: %s", error)
            except Exception:  # of whatever was stored: this thread must not end
                log.exception("drift is not compared")
