"""The API: one table of routes, from which the app and its OpenAPI document are made."""

from __future__ import annotations

import math
import time

from flask import Response, g
from flask_wtf.csrf import generate_csrf  # type: ignore[import-untyped]
from werkzeug.exceptions import BadRequest, ServiceUnavailable

from cloud_app.store import NodeEvent, Record, Store
from cloud_app.views import LiveSite
from cloud_app.web.board import Board, Streams
from cloud_app.web.demo_routes import DemoApi
from cloud_app.web.messages import (
    MAX_ANSWERS,
    GiveLabel,
    Node,
    Nothing,
    OfAnswers,
    OfEvents,
    Offload,
    OfSeries,
    OfSite,
    Ready,
    Series,
    State,
    SummaryNow,
    Viewer,
)
from cloud_app.web.metrics import METRICS_TYPE, Metrics
from cloud_app.web.route import EVENT_STREAM, JSON, TEXT, Route, find_requester
from cloud_app.web.threshold_routes import ThresholdsApi

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
        self._parts = (ThresholdsApi(store, live), DemoApi(live))

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
                "POST",
                f"{v1}/labels",
                self.label,
                Record,
                "Say what a sample shows.",
                takes=GiveLabel,
            ),
            *(route for part in self._parts for route in part.routes()),
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

    # ---------------------------------------------------------------- labels

    def label(self, command: GiveLabel) -> Record:
        names = self._live.bundle().labels
        if command.label is not None and names and command.label >= len(names):
            raise BadRequest(f"label {command.label}: the bundle has 0 to {len(names) - 1}")
        return self._store.label(
            command.site, command.sample, command.label, find_requester(), time.time()
        )

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
