"""The part of the API that shows, changes and tries exit thresholds."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Mapping
from typing import Any

from werkzeug.exceptions import BadRequest, Conflict, NotFound

from cloud_app.store import Change, Replay, Store
from cloud_app.views import BundleView, LiveSite
from cloud_app.web.board import find_thresholds_in_use, list_sites
from cloud_app.web.messages import (
    ApplyThresholds,
    FrontRow,
    RevertThresholds,
    SiteQuery,
    Sweep,
    ThresholdEvaluation,
    ThresholdsNow,
    ThresholdState,
    WhatIfNow,
    WhatIfQuery,
)
from cloud_app.web.route import Route, find_requester
from cloud_app.whatif import audit_exits, evaluate_thresholds, find_nearest_row
from ddnn.errors import LinkError
from ddnn.exits.thresholds import MAX_STEP

CHANGES = 20
REPLAYS = 2000  # the newest samples, which other thresholds answer again
REPLAYS_MAX_AGE_S = 1.0


class ThresholdsApi:
    """Shows and changes thresholds. Every method may be called from any thread."""

    def __init__(self, store: Store, live: LiveSite) -> None:
        self._store, self._live = store, live
        self._changing = threading.Lock()
        self._replays: dict[tuple[str, str], tuple[float, list[Replay]]] = {}

    def routes(self) -> tuple[Route, ...]:
        v1, site = "/api/v1", SiteQuery
        return (
            Route(
                "GET",
                f"{v1}/thresholds",
                self.get_thresholds,
                ThresholdsNow,
                "The thresholds in use, those to choose from, and the changes.",
                site,
            ),
            Route(
                "POST",
                f"{v1}/thresholds",
                self.apply_thresholds,
                Change,
                "Send a site's edge other thresholds.",
                takes=ApplyThresholds,
            ),
            Route(
                "POST",
                f"{v1}/thresholds/revert",
                self.revert_thresholds,
                Change,
                "Send the thresholds before the newest change.",
                takes=RevertThresholds,
            ),
            Route(
                "GET",
                f"{v1}/whatif",
                self.get_whatif,
                WhatIfNow,
                "The results of other thresholds, on validation data and on recorded samples.",
                WhatIfQuery,
            ),
        )

    def get_thresholds(self, ask: SiteQuery) -> ThresholdsNow:
        site, bundle = self._find_site(ask.site), self._live.bundle
        used = self._find_thresholds_in_use(site)
        return ThresholdsNow(
            site,
            bundle.id,
            used.in_use,
            used.own,
            used.revision,
            [Sweep.of(row) for row in bundle.sweep],
            [
                FrontRow(
                    row.thresholds,
                    row.accuracy,
                    row.exit_share,
                    row.bytes_per_sample_per_device,
                    bundle.compute_total_bytes(row),
                )
                for row in bundle.front
            ],
            self._store.list_changes(site, CHANGES),
        )

    def apply_thresholds(self, command: ApplyThresholds) -> Change:
        with self._changing:
            return self._change_thresholds(command.site, command.thresholds, "applied")

    def revert_thresholds(self, command: RevertThresholds) -> Change:
        with self._changing:
            newest = self._find_newest_change(self._find_site(command.site))
            if newest is None:
                raise Conflict(
                    f"site {command.site}: the thresholds of bundle {self._live.bundle.id} "
                    "have never been changed"
                )
            return self._change_thresholds(command.site, newest.before, "reverted")

    def _find_newest_change(self, site: str) -> Change | None:
        """The newest change; None where it was made for another bundle, and does not apply."""
        changes = self._store.list_changes(site, 1)
        return changes[0] if changes and changes[0].bundle == self._live.bundle.id else None

    def _change_thresholds(self, site: str, thresholds: Mapping[str, float], what: Any) -> Change:
        """Store the change, then send it. The page shows what the edge reports to be in use."""
        site, bundle, link = self._find_site(site), self._live.bundle, self._live.read_link()
        if set(thresholds) != set(bundle.thresholds):
            wanted = ", ".join(bundle.thresholds) or "none"
            got = ", ".join(thresholds) or "none"
            raise BadRequest(f"thresholds for exits {got}; bundle {bundle.id} has {wanted}")
        if not link.connected:
            raise LinkError(f"nothing changed: the broker {link.broker} is away; try again later")
        used, newest = self._find_thresholds_in_use(site), self._find_newest_change(site)
        before = used.in_use or used.own
        if newest and (used.revision is None or used.revision < newest.revision):
            before = newest.thresholds  # sent, but the edge has not reported it yet
        # Above the edge's, even where the store is a new one; but statistics may be forged, and
        # after a revision that the edge cannot follow it would take no command any more.
        stored = self._store.list_changes(site, 1)
        limit = MAX_STEP + (stored[0].revision if stored else 0)
        after = 1 + (used.revision if used.revision and used.revision <= limit else 0)
        asked = Change(
            time.time(),
            site,
            find_requester(),
            {t: min(v, 1.0) for t, v in thresholds.items()},
            dict(before),
            after,
            what,
            bundle.id,
        )
        change = self._store.add_change(asked)
        # It is stored and sent again at every connect: failing to send it now is no error.
        with contextlib.suppress(LinkError):
            self._live.send_thresholds(site, change.thresholds, change.revision)
        return change

    def get_whatif(self, ask: WhatIfQuery) -> WhatIfNow:
        site, bundle = self._find_site(ask.site), self._live.bundle
        used = self._find_thresholds_in_use(site)
        now = used.in_use or used.own
        given = {t: v for t, v in (("local", ask.local), ("edge", ask.edge)) if v is not None}
        if not given.keys() <= bundle.thresholds.keys():
            wanted = ", ".join(bundle.thresholds) or "no thresholds"
            raise BadRequest(f"bundle {bundle.id} has {wanted}")
        replays = self._list_replays(site, bundle)
        row = find_nearest_row(bundle.sweep, now)
        looked_at = self._evaluate_thresholds(bundle, {**now, **given}, replays)
        return WhatIfNow(
            site,
            looked_at.thresholds,
            looked_at.sweep,
            looked_at.recorded,
            self._evaluate_thresholds(bundle, now, replays),
            bundle.compute_total_bytes(row) if row else None,
            audit_exits(bundle.exits, now, used.audit_share or 0.0, replays),
        )

    def _evaluate_thresholds(
        self, bundle: BundleView, thresholds: Mapping[str, float], replays: list[Replay]
    ) -> ThresholdEvaluation:
        row = find_nearest_row(bundle.sweep, thresholds)
        return ThresholdEvaluation(
            dict(thresholds),
            Sweep.of(row) if row else None,
            evaluate_thresholds(bundle.exits, bundle.sweep, thresholds, replays),
        )

    def _list_replays(self, site: str, bundle: BundleView) -> list[Replay]:
        """The replays, at most 1 s old: a slider asks many times while it is dragged."""
        key, now_s = (site, bundle.id), time.monotonic()
        read_s, replays = self._replays.get(key, (-math.inf, []))
        if now_s - read_s > REPLAYS_MAX_AGE_S:
            replays = self._store.list_replays(REPLAYS, site, bundle.id)
            self._replays = {k: v for k, v in self._replays.items() if now_s - v[0] < 60}
            self._replays[key] = now_s, replays
        return replays

    def _find_thresholds_in_use(self, site: str) -> ThresholdState:
        return find_thresholds_in_use(
            self._live.list_nodes(), self._live.bundle, self._live.read_link(), site
        )

    def _find_site(self, site: str | None) -> str:
        """Check that a site is known; without a name, take the only one."""
        sites = list_sites(self._live.list_nodes(), self._store.list_sites())
        known = ", ".join(sites) or "none"
        if site is None and len(sites) == 1:
            return sites[0]
        if site is None:
            raise BadRequest(f"name one of the sites: {known}")
        if site not in sites:
            raise NotFound(f"there is no site {site}; known: {known}")
        return site
