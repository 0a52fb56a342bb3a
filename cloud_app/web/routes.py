"""The API: one table of routes, from which the app and its OpenAPI document are made."""

from __future__ import annotations

import contextlib
import io
import math
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from flask import Response, g, request
from flask_wtf.csrf import generate_csrf  # type: ignore[import-untyped]
from PIL import Image
from werkzeug.exceptions import BadRequest, Conflict, NotFound, ServiceUnavailable

from cloud_app.store import Change, NodeEvent, Record, Replay, Store
from cloud_app.views import Act, BundleView, Demo, LiveSite
from cloud_app.web.board import Board, Streams, in_use, sites_of
from cloud_app.web.messages import (
    MAX_ANSWERS,
    ApplyThresholds,
    DemoState,
    GiveLabel,
    InUse,
    Node,
    Nothing,
    OfAnswers,
    OfEvents,
    Offload,
    OfNode,
    OfSample,
    OfSeries,
    OfSite,
    OfWhatIf,
    Ready,
    RevertThresholds,
    Series,
    State,
    SummaryNow,
    Sweep,
    ThresholdsNow,
    Viewer,
    WhatIfInUse,
    WhatIfNow,
)
from cloud_app.web.metrics import METRICS_TYPE, Metrics
from cloud_app.web.route import EVENT_STREAM, JSON, PNG, TEXT, Route
from cloud_app.whatif import nearest, what_if
from ddnn.errors import LinkError

READY_S = 60.0  # a real inference must be as young as that
MOST_POINTS = 240  # of a series
STEPS_S = tuple(60 * m for m in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880))
CHANGES = 20
RECORDED = 2000  # samples that a what-if looks at
RECORDED_FRESH_S = 1.0
MOST_PIXELS = 4_000_000
GAP_PIXELS = 2  # between two views


class Api:
    """Answers the questions and commands of the API; from any thread."""

    def __init__(self, store: Store, live: LiveSite, streams: Streams) -> None:
        self._store, self._live, self._streams = store, live, streams
        self._board = Board(store, live)
        self._metrics = Metrics(store, live)
        self._changing = threading.Lock()
        self._replays: dict[tuple[str, str], tuple[float, list[Replay]]] = {}

    def routes(self) -> tuple[Route, ...]:
        v1, site = "/api/v1", OfSite
        return (
            Route("GET", f"{v1}/state", self.state, State, "Everything that the page shows.", site),
            Route(
                "GET",
                f"{v1}/stream",
                self.stream,
                EVENT_STREAM,
                "Server-sent events `state`, each a State, one per second.",
                site,
            ),
            Route("GET", f"{v1}/summary", self.summary, SummaryNow, "The numbers only.", site),
            Route(
                "GET",
                f"{v1}/answers",
                self.answers,
                list[Record],
                f"Stored answers by sample number, at most {MAX_ANSWERS}.",
                OfAnswers,
            ),
            Route(
                "GET",
                f"{v1}/series",
                self.series,
                Series,
                f"The samples over time, in at most {MOST_POINTS + 1} buckets.",
                OfSeries,
            ),
            Route("GET", f"{v1}/events", self.events, list[NodeEvent], "The newest.", OfEvents),
            Route("GET", f"{v1}/nodes", self.nodes, list[Node], "All nodes.", site),
            Route(
                "GET",
                f"{v1}/offload",
                self.offloads,
                list[Offload],
                "Sections whose work goes to workers now.",
                site,
            ),
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
            Route(
                "POST",
                f"{v1}/labels",
                self.label,
                Record,
                "Say what a sample shows.",
                takes=GiveLabel,
            ),
            Route(
                "GET",
                f"{v1}/demo/views/{{sample}}.png",
                self.views,
                PNG,
                "What the cameras saw, side by side. In a demo only.",
                OfSample,
            ),
            Route(
                "POST",
                f"{v1}/demo/nodes/{{node}}/kill",
                self.kill,
                DemoState,
                "Kill a process. In a demo only.",
                OfNode,
            ),
            Route(
                "POST",
                f"{v1}/demo/nodes/{{node}}/start",
                self.start,
                DemoState,
                "Start it again. In a demo only.",
                OfNode,
            ),
            Route("GET", "/metrics", self.metrics, METRICS_TYPE, "For Prometheus."),
            Route("GET", "/healthz", self.healthz, TEXT, "The process lives.", open=True),
            Route(
                "GET",
                "/readyz",
                self.readyz,
                Ready,
                "Broker and database are there, and a real inference was made lately.",
                open=True,
            ),
        )

    # ------------------------------------------------------------------- now

    def now(self, ask: OfSite) -> bytes:
        """State as JSON, for who asks."""
        return self._board.state(ask.site, viewer())

    def state(self, ask: OfSite) -> Response:
        return Response(self.now(ask), mimetype=JSON)

    def stream(self, ask: OfSite) -> Response:
        who, until_s = viewer(), g.until_s
        if not self._streams.take():
            raise ServiceUnavailable("too many listen already; ask for /api/v1/state instead")
        response = Response(
            self._streams.events(
                lambda: self._board.state(ask.site, who),
                lambda: time.time() < until_s,
            ),
            mimetype=EVENT_STREAM,
            headers={"X-Accel-Buffering": "no"},
        )
        response.call_on_close(self._streams.give_back)
        return response

    def summary(self, ask: OfSite) -> SummaryNow:
        return SummaryNow(time.time(), ask.site, self._store.summary(ask.site))

    def answers(self, ask: OfAnswers) -> list[Record]:
        return self._store.answers(ask.site, ask.first, ask.last, MAX_ANSWERS)

    def series(self, ask: OfSeries) -> Series:
        at_s = time.time()
        step_s = next(
            (step for step in STEPS_S if ask.minutes * 60 <= step * MOST_POINTS), STEPS_S[-1]
        )
        first_s = math.ceil(at_s / step_s) * step_s - max(1, ask.minutes * 60 // step_s) * step_s
        return Series(at_s, ask.site, step_s, self._store.series(first_s, at_s, step_s, ask.site))

    def events(self, ask: OfEvents) -> list[NodeEvent]:
        return self._store.events(ask.n)

    def nodes(self, ask: OfSite) -> list[Node]:
        bundle = self._live.bundle()
        return [
            Node.of(node, bundle) for node in self._live.nodes() if ask.site in (None, node.site)
        ]

    def offloads(self, ask: OfSite) -> list[Offload]:
        return [Offload.of(view) for view in self._live.offloads() if ask.site in (None, view.site)]

    # ------------------------------------------------------------ thresholds

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
        after = (used.revision or 0) + 1  # the store may have been made anew; the edge remembers
        asked = Change(
            time.time(),
            site,
            _by(),
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

    # ---------------------------------------------------------------- labels

    def label(self, command: GiveLabel) -> Record:
        names = self._live.bundle().labels
        if command.label is not None and names and command.label >= len(names):
            raise BadRequest(f"label {command.label}: the bundle has 0 to {len(names) - 1}")
        return self._store.label(command.site, command.sample, command.label, _by(), time.time())

    # ------------------------------------------------------------------ demo

    def views(self, ask: OfSample) -> Response:
        return Response(side_by_side(self._demo().views(ask.sample)), mimetype=PNG)

    def kill(self, ask: OfNode) -> DemoState:
        return self._act("kill", ask.node)

    def start(self, ask: OfNode) -> DemoState:
        return self._act("start", ask.node)

    def _act(self, what: Act, node: str) -> DemoState:
        demo = self._demo()
        if node not in demo.nodes():
            raise NotFound(f"the demo has no node {node}")
        demo.act(what, node)
        return DemoState(demo.nodes())

    def _demo(self) -> Demo:
        demo = self._live.demo()
        if demo is None:
            raise NotFound("only a demo has this: in production no image leaves its device")
        return demo

    # ------------------------------------------------------------ operations

    def metrics(self, _ask: Nothing) -> Response:
        return Response(self._metrics.exposition(), content_type=METRICS_TYPE)

    def healthz(self, _ask: Nothing) -> Response:
        return Response("ok\n", mimetype=TEXT)

    def readyz(self, _ask: Nothing) -> Ready:
        link, away = self._live.link(), self._live.database_away()
        age_s = self._live.inference_age_s()
        wrong = []
        if not link.connected:
            wrong.append(f"no broker at {link.broker}: {link.reason or 'not connected yet'}")
        if away:
            wrong.append(f"answers cannot be written: {away}")
        if age_s is None:
            wrong.append("no inference seen yet")
        elif age_s > READY_S:
            wrong.append(f"no inference for {age_s:.0f} s")
        if wrong or age_s is None:
            raise ServiceUnavailable("not ready: " + "; ".join(wrong))
        return Ready(age_s)


def viewer() -> Viewer:
    """Who asks, as the guard found out. A machine gets no session."""
    return Viewer(g.person, "" if g.machine else generate_csrf())


def _by() -> str:
    return request.remote_addr or "unknown"


def side_by_side(views: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """PNG of uint8 [devices, height, width, 3] in a row; too great ones are made smaller."""
    devices, height, width, _ = views.shape
    row = np.zeros((height, devices * (width + GAP_PIXELS) - GAP_PIXELS, 4), np.uint8)
    for i, view in enumerate(views):
        left = i * (width + GAP_PIXELS)
        row[:, left : left + width, :3] = view
        row[:, left : left + width, 3] = 255  # the gaps stay transparent
    image = Image.fromarray(row)
    if row.shape[0] * row.shape[1] > MOST_PIXELS:
        scale = math.sqrt(MOST_PIXELS / (row.shape[0] * row.shape[1]))
        image.thumbnail((max(1, int(row.shape[1] * scale)), max(1, int(row.shape[0] * scale))))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
