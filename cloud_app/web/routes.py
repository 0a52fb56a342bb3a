"""The API as a table of routes, from which the app and its OpenAPI document are made."""

from __future__ import annotations

import math
import time

from flask import Response, g
from flask_wtf.csrf import generate_csrf  # type: ignore[import-untyped]
from werkzeug.exceptions import BadRequest, ServiceUnavailable

from cloud_app.store import NodeEvent, Record, Store
from cloud_app.views import LiveSite
from cloud_app.web.board import NEWEST, Board, Streams
from cloud_app.web.demo_routes import DemoApi
from cloud_app.web.messages import (
    MAX_ANSWERS,
    AnswersQuery,
    EventsQuery,
    GiveLabel,
    Node,
    NoParameters,
    Offload,
    Ready,
    Series,
    SeriesQuery,
    SiteQuery,
    State,
    SummaryNow,
    Training,
    Viewer,
)
from cloud_app.web.metrics import METRICS_TYPE, Metrics
from cloud_app.web.route import EVENT_STREAM, JSON, TEXT, Route, find_requester
from cloud_app.web.threshold_routes import ThresholdsApi

READY_S = 60.0  # the greatest age of the newest inference
MAX_POINTS = 240  # of a series
STEPS_S = tuple(60 * m for m in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880))


class Api:
    """Answers the requests of the API. Every method may be called from any thread."""

    def __init__(self, store: Store, live: LiveSite, streams: Streams) -> None:
        self._store, self._live, self._streams = store, live, streams
        self._board = Board(store, live)
        self._metrics = Metrics(store, live)
        self._parts = (ThresholdsApi(store, live), DemoApi(live))

    def routes(self) -> tuple[Route, ...]:
        v1, site = "/api/v1", SiteQuery
        return (
            Route(
                "GET", f"{v1}/state", self.get_state, State, "Everything that the page shows.", site
            ),
            Route(
                "GET",
                f"{v1}/stream",
                self.stream_states,
                EVENT_STREAM,
                "Server-sent events `state`, each a State, one per second.",
                site,
            ),
            Route("GET", f"{v1}/summary", self.get_summary, SummaryNow, "The numbers only.", site),
            Route(
                "GET",
                f"{v1}/answers",
                self.list_answers,
                list[Record],
                f"Stored answers by sample number, at most {MAX_ANSWERS}.",
                AnswersQuery,
            ),
            Route(
                "GET",
                f"{v1}/doubtful",
                self.list_doubtful,
                list[Record],
                f"New samples that a label would teach most, at most {NEWEST}.",
                site,
            ),
            Route(
                "GET",
                f"{v1}/series",
                self.get_series,
                Series,
                f"The samples over time, in at most {MAX_POINTS + 1} buckets.",
                SeriesQuery,
            ),
            Route(
                "GET", f"{v1}/events", self.list_events, list[NodeEvent], "The newest.", EventsQuery
            ),
            Route("GET", f"{v1}/nodes", self.list_nodes, list[Node], "All nodes.", site),
            Route(
                "GET",
                f"{v1}/offload",
                self.list_offloads,
                list[Offload],
                "Sections whose work goes to workers now.",
                site,
            ),
            Route(
                "GET",
                f"{v1}/training",
                self.list_trainings,
                list[Training],
                "Trainings across devices, of the last hour.",
                site,
            ),
            Route(
                "POST",
                f"{v1}/labels",
                self.set_label,
                Record,
                "Give a sample its class.",
                takes=GiveLabel,
            ),
            *(route for part in self._parts for route in part.routes()),
            Route("GET", "/metrics", self.get_metrics, METRICS_TYPE, "For Prometheus."),
            Route("GET", "/healthz", self.check_health, TEXT, "The process runs.", open=True),
            Route(
                "GET",
                "/readyz",
                self.check_readiness,
                Ready,
                "Broker and database can be used, and a real inference was made lately.",
                open=True,
            ),
        )

    # ------------------------------------------------------------------- now

    def make_state(self, ask: SiteQuery) -> bytes:
        """Make a State as JSON for the viewer who sends the current request."""
        return self._board.make_state(ask.site, find_viewer())

    def get_state(self, ask: SiteQuery) -> Response:
        return Response(self.make_state(ask), mimetype=JSON)

    def stream_states(self, ask: SiteQuery) -> Response:
        who, is_session_open = find_viewer(), g.is_session_open
        if not self._streams.acquire():
            raise ServiceUnavailable("too many streams are open; read /api/v1/state instead")
        response = Response(
            self._streams.generate_events(
                lambda: self._board.make_state(ask.site, who),
                is_session_open,
            ),
            mimetype=EVENT_STREAM,
            headers={"X-Accel-Buffering": "no"},
        )
        response.call_on_close(self._streams.release)
        return response

    def get_summary(self, ask: SiteQuery) -> SummaryNow:
        return SummaryNow(time.time(), ask.site, self._store.summarize(ask.site))

    def list_answers(self, ask: AnswersQuery) -> list[Record]:
        return self._store.list_answers(ask.site, ask.first, ask.last, MAX_ANSWERS)

    def list_doubtful(self, ask: SiteQuery) -> list[Record]:
        return self._store.list_doubtful(NEWEST, ask.site)

    def get_series(self, ask: SeriesQuery) -> Series:
        at_s = time.time()
        step_s = next(
            (step for step in STEPS_S if ask.minutes * 60 <= step * MAX_POINTS), STEPS_S[-1]
        )
        first_s = math.ceil(at_s / step_s) * step_s - max(1, ask.minutes * 60 // step_s) * step_s
        return Series(
            at_s, ask.site, step_s, self._store.read_series(first_s, at_s, step_s, ask.site)
        )

    def list_events(self, ask: EventsQuery) -> list[NodeEvent]:
        return self._store.list_events(ask.n)

    def list_nodes(self, ask: SiteQuery) -> list[Node]:
        bundle = self._live.bundle
        return [
            Node.of(node, bundle)
            for node in self._live.list_nodes()
            if ask.site in (None, node.site)
        ]

    def list_offloads(self, ask: SiteQuery) -> list[Offload]:
        return [
            Offload.of(view) for view in self._live.list_offloads() if ask.site in (None, view.site)
        ]

    def list_trainings(self, ask: SiteQuery) -> list[Training]:
        return [
            Training.of(view)
            for view in self._live.list_trainings()
            if ask.site in (None, view.site)
        ]

    # ---------------------------------------------------------------- labels

    def set_label(self, command: GiveLabel) -> Record:
        names = self._live.bundle.labels
        if command.label is not None and names and command.label >= len(names):
            raise BadRequest(f"label {command.label}: the bundle has 0 to {len(names) - 1}")
        return self._store.set_label(
            command.site, command.sample, command.label, find_requester(), time.time()
        )

    # ------------------------------------------------------------ operations

    def get_metrics(self, _ask: NoParameters) -> Response:
        return Response(self._metrics.make_exposition(), content_type=METRICS_TYPE)

    def check_health(self, _ask: NoParameters) -> Response:
        return Response("ok\n", mimetype=TEXT)

    def check_readiness(self, _ask: NoParameters) -> Ready:
        link, away = self._live.read_link(), self._live.find_database_error()
        age_s = self._live.measure_inference_age_s()
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
            # A stranger learns what is away, but no address, path or reason.
            shown = [text.partition(":")[0].partition(" at ")[0] for text in wrong]
            raise ServiceUnavailable("not ready: " + "; ".join(shown if g.stranger else wrong))
        return Ready(age_s)


def find_viewer() -> Viewer:
    """The viewer who sends the current request. A machine gets no session and no token."""
    return Viewer(g.person, "" if g.machine else generate_csrf())
