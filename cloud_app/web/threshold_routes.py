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
from cloud_app.web.board import in_use, sites_of
from cloud_app.web.messages import (
    ApplyThresholds,
    InUse,
    OfSite,
    OfWhatIf,
    RevertThresholds,
    Sweep,
    ThresholdsNow,
    WhatIfInUse,
    WhatIfNow,
)
from cloud_app.web.route import Route, find_requester
from cloud_app.whatif import nearest, what_if
from ddnn.errors import LinkError

CHANGES = 20
RECORDED = 2000  # samples that a what-if looks at
RECORDED_FRESH_S = 1.0


class ThresholdsApi:
    """Answers questions and commands about thresholds; from any thread."""

    def __init__(self, store: Store, live: LiveSite) -> None:
        self._store, self._live = store, live
        self._changing = threading.Lock()
        self._replays: dict[tuple[str, str], tuple[float, list[Replay]]] = {}

    def routes(self) -> tuple[Route, ...]:
        v1, site = "/api/v1", OfSite
        return (
            Route(
                "GET",
                f"{v1}/thresholds",
                self.thresholds,
                ThresholdsNow,
                "The thresholds in use, those to choose from, and who changed them.",
                site,
            ),
            Route(
                "POST",
                f"{v1}/thresholds",
                self.apply,
                Change,
                "Send a site's edge other thresholds.",
                takes=ApplyThresholds,
            ),
            Route(
                "POST",
                f"{v1}/thresholds/revert",
                self.revert,
                Change,
                "Send those before the newest change.",
                takes=RevertThresholds,
            ),
            Route(
                "GET",
                f"{v1}/whatif",
                self.whatif,
                WhatIfNow,
                "What other thresholds would give, by validation and by recorded samples.",
                OfWhatIf,
            ),
        )

    def thresholds(self, ask: OfSite) -> ThresholdsNow:
        site, bundle = self._site(ask.site), self._live.bundle()
        used = self._in_use(site)
        return ThresholdsNow(
            site,
            bundle.id,
            used.in_use,
            used.own,
            used.revision,
            [Sweep.of(row) for row in bundle.sweep],
            self._store.changes(site, CHANGES),
        )

    def apply(self, command: ApplyThresholds) -> Change:
        with self._changing:
            return self._change(command.site, command.thresholds, "applied")

    def revert(self, command: RevertThresholds) -> Change:
        with self._changing:
            newest = self._newest_change(self._site(command.site))
            if newest is None:
                raise Conflict(
                    f"site {command.site}: the thresholds of bundle {self._live.bundle().id} "
                    "have never been changed"
                )
            return self._change(command.site, newest.before, "reverted")

    def _newest_change(self, site: str) -> Change | None:
        """None where it was of another bundle, whose thresholds mean nothing here."""
        changes = self._store.changes(site, 1)
        return changes[0] if changes and changes[0].bundle == self._live.bundle().id else None

    def _change(self, site: str, thresholds: Mapping[str, float], what: Any) -> Change:
        """Write it down, then send it. What was not sent can be seen by what the edge reports."""
        site, bundle, link = self._site(site), self._live.bundle(), self._live.link()
        if set(thresholds) != set(bundle.thresholds):
            wanted = ", ".join(bundle.thresholds) or "none"
            got = ", ".join(thresholds) or "none"
            raise BadRequest(f"thresholds for exits {got}; bundle {bundle.id} has {wanted}")
        if not link.connected:
            raise LinkError(f"nothing changed: the broker {link.broker} is away; try again later")
        used, newest = self._in_use(site), self._newest_change(site)
        before = used.in_use or used.own
        if newest and (used.revision is None or used.revision < newest.revision):
            before = newest.thresholds  # sent, and not yet reported
        after = (used.revision or 0) + 1  # the store may have been replaced; the edge remembers
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
        # It is written down, and sent again at every connect: that it was not sent now is no error.
        with contextlib.suppress(LinkError):
            self._live.send_thresholds(site, change.thresholds, change.revision)
        return change

    def whatif(self, ask: OfWhatIf) -> WhatIfNow:
        site, bundle = self._site(ask.site), self._live.bundle()
        used = self._in_use(site)
        now = used.in_use or used.own
        given = {t: v for t, v in (("local", ask.local), ("edge", ask.edge)) if v is not None}
        if not given.keys() <= bundle.thresholds.keys():
            wanted = ", ".join(bundle.thresholds) or "no thresholds"
            raise BadRequest(f"bundle {bundle.id} has {wanted}")
        replays = self._recorded(site, bundle)
        looked_at = self._what_if(bundle, {**now, **given}, replays)
        return WhatIfNow(
            site,
            looked_at.thresholds,
            looked_at.sweep,
            looked_at.recorded,
            self._what_if(bundle, now, replays),
        )

    def _what_if(
        self, bundle: BundleView, thresholds: Mapping[str, float], replays: list[Replay]
    ) -> WhatIfInUse:
        row = nearest(bundle.sweep, thresholds)
        return WhatIfInUse(
            dict(thresholds),
            Sweep.of(row) if row else None,
            what_if(bundle.exits, bundle.sweep, thresholds, replays),
        )

    def _recorded(self, site: str, bundle: BundleView) -> list[Replay]:
        """At most a second old: a slider asks many times while it is drawn."""
        key, now_s = (site, bundle.id), time.monotonic()
        read_s, replays = self._replays.get(key, (-math.inf, []))
        if now_s - read_s > RECORDED_FRESH_S:
            replays = self._store.recorded(RECORDED, site, bundle.id)
            self._replays = {k: v for k, v in self._replays.items() if now_s - v[0] < 60}
            self._replays[key] = now_s, replays
        return replays

    def _in_use(self, site: str) -> InUse:
        return in_use(self._live.nodes(), self._live.bundle(), self._live.link(), site)

    def _site(self, site: str | None) -> str:
        """The site that is meant: one that is known, or the only one."""
        sites = sites_of(self._live.nodes(), self._store.sites())
        known = ", ".join(sites) or "none"
        if site is None and len(sites) == 1:
            return sites[0]
        if site is None:
            raise BadRequest(f"name one of the sites: {known}")
        if site not in sites:
            raise NotFound(f"there is no site {site}; known: {known}")
        return site
