"""The cloud's page: nodes, exits, accuracy and bytes, and the same as JSON.

`view` turns what the store and the nodes say into the words that are shown. The template shows
them when the page loads, page.js shows them anew every second: both only place text.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import waitress.server  # type: ignore[import-untyped]
from flask import Flask, Response, render_template, request

from cloud_app.store import NodeEvent, Record, Store, Summary
from ddnn.errors import ConfigError, LinkError

NEWEST = 20  # answers and events shown
ANSWERS_PAGE = 1000
MAX_SAMPLE = 2**53
CLOSE_S = 5.0  # how long closing waits for requests under way

_HEADERS = {
    # Nothing but this server's own files: no inline script or style, no other host, no frame.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",  # an old number must never come out of a cache
}


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the cloud sees it."""

    site: str
    id: str
    role: str
    state: Literal["online", "stopped", "lost"]
    bundle: str = ""
    last_seen_age_s: float | None = None  # None: not seen since this program started
    memory_bytes: int = 0
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BundleView:
    """The bundle in use, and what a sample of one device takes without ddnn."""

    id: str
    raw_bytes: int
    jpeg_bytes: float | None = None
    labels: tuple[str, ...] = ()  # class names; without them the numbers are shown


# --------------------------------------------------------------------- view

_NBSP = "\N{NO-BREAK SPACE}"  # keeps a number and its unit on one line


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: text, a smaller note under it, a mark (CSS class), a bar in [0, 1]."""

    text: str
    note: str = ""
    mark: str = ""
    bar: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """What the page shows, as words: `texts` by element, `tables` by element as rows of cells."""

    texts: dict[str, str]
    tables: dict[str, list[list[Cell]]]


def view(
    summary: Summary,
    newest: Sequence[Record],
    events: Sequence[NodeEvent],
    nodes: Sequence[NodeView],
    bundle: BundleView,
    now_s: float,
) -> View:
    online = sum(node.state == "online" for node in nodes)
    sites = {item.site for items in (newest, events, nodes) for item in items}
    several = len(sites) > 1  # one site need not be named in every row
    texts = {
        "bundle": f"bundle {bundle.id}" if bundle.id else "no bundle",
        "as_of": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s)),
        "answered": f"{summary.answered:,}",
        "last": f"newest {_ago(now_s - newest[0].answer.answered_at_s)}" if newest else "none yet",
        "accuracy": _percent(summary.accuracy),
        "known": (f"of {summary.known:,} with known truth" if summary.known else "no truth known")
        + f"; expected {_percent(summary.expected_accuracy)}",
        "bytes": _bytes(summary.payload_bytes),
        "reduction": _reduction(bundle.raw_bytes, summary.payload_bytes),
        "degraded": f"{summary.quality['degraded']:,}",
        "late": f"{summary.late:,} delivered late",
        "online": f"{online} of {len(nodes)}",
        "absent": _absent(nodes),
    }
    tables = {
        "exits": _exits(summary),
        "bytes": _byte_bars(summary, bundle),
        "nodes": [_node(node, several) for node in nodes],
        "answers": [_answer(record, bundle, now_s, several) for record in newest],
        "events": [
            [
                Cell(f"{event.node} {event.what}", event.site if several else ""),
                Cell("", _ago(now_s - event.at_s)),
            ]
            for event in events
        ],
    }
    return View(texts, tables)


def _exits(summary: Summary) -> list[list[Cell]]:
    return [
        [
            Cell(exit_, f"{of.answered:,}", exit_),
            Cell(_percent(of.share), bar=of.share, mark=exit_),
            Cell(_percent(of.accuracy)),
            Cell(_duration(of.latency_p50_s), f"p99{_NBSP}{_duration(of.latency_p99_s)}"),
        ]
        for exit_, of in summary.exits.items()
        if of.answered
    ]


def _byte_bars(summary: Summary, bundle: BundleView) -> list[list[Cell]]:
    sizes = (
        ("sent", "arrays only", summary.payload_bytes, "sent"),
        ("sent", "with headers", summary.wire_bytes, "sent"),
        ("JPEG", "quality 90", bundle.jpeg_bytes, "image"),
        ("raw", "the image", bundle.raw_bytes, "image"),
    )
    most = max((size for _, _, size, _ in sizes if size is not None), default=0.0)
    return [
        [
            Cell(name, note),
            Cell(_bytes(size), bar=size / most if size and most else 0.0, mark=mark),
        ]
        for name, note, size, mark in sizes
        if size is not None
    ]


def _node(node: NodeView, several_sites: bool) -> list[Cell]:
    seen = "never seen" if node.last_seen_age_s is None else _ago(node.last_seen_age_s)
    counts = ", ".join(f"{name} {count:,}" for name, count in sorted(node.counts.items()))
    memory = f"{node.memory_bytes / 1e6:.0f}{_NBSP}MB" if node.memory_bytes else "–"
    return [
        Cell(node.id, f"{node.role}, {node.site}" if several_sites else node.role),
        Cell(node.state, seen, mark=node.state),
        Cell(memory, node.bundle),
        Cell("", counts or "–"),
    ]


def _answer(record: Record, bundle: BundleView, now_s: float, several_sites: bool) -> list[Cell]:
    answer = record.answer
    label = _label(answer.label, bundle)
    if answer.truth is None or answer.truth < 0:
        verdict = Cell(label)
    elif answer.truth == answer.label:
        verdict = Cell(label, "right", mark="right")
    else:
        verdict = Cell(label, f"wrong: {_label(answer.truth, bundle)}", mark="wrong")
    when = _ago(now_s - answer.answered_at_s)
    quality = ["late"] * answer.late
    if answer.missing:
        quality.append("without " + ", ".join(answer.missing))
    return [
        Cell(str(answer.sample), f"{when}, {record.site}" if several_sites else when),
        verdict,
        Cell(answer.exit, _duration(answer.latency_s), mark=answer.exit),
        Cell(answer.quality, "; ".join(quality), mark=answer.quality),
    ]


def _label(label: int, bundle: BundleView) -> str:
    if label < 0:
        return "no label"
    return bundle.labels[label] if label < len(bundle.labels) else str(label)


def _absent(nodes: Sequence[NodeView]) -> str:
    absent = [node.id for node in nodes if node.state != "online"]
    if not nodes:
        return "none has reported yet"
    return "absent: " + ", ".join(absent) if absent else "all present"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f}{_NBSP}%"


def _bytes(size: float | None) -> str:
    if size is None:
        return "–"
    return f"{size:,.1f}{_NBSP}B" if size < 1000 else f"{size:,.0f}{_NBSP}B"


def _reduction(raw_bytes: int, sent_bytes: float | None) -> str:
    if not sent_bytes:
        return "per sample and device"
    return f"per sample and device, {raw_bytes / sent_bytes:.0f}× less than raw"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.1f}{_NBSP}ms" if seconds < 1 else f"{seconds:,.1f}{_NBSP}s"


def _ago(seconds: float) -> str:
    """An age; a clock that runs ahead of ours gives "now"."""
    if seconds < 1:
        return "now"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:,.0f}{_NBSP}{unit} ago"
    return f"{seconds:.0f}{_NBSP}s ago"


# ---------------------------------------------------------------------- app


def create_app(
    store: Store,
    nodes: Callable[[], Sequence[NodeView]],
    bundle_info: Callable[[], BundleView],
) -> Flask:
    """The page `/`, its numbers `/api/v1/summary` and `/healthz`; 503 while the store is away.

    `nodes` and `bundle_info` are called from the server's threads at every request.
    """
    app = Flask(__name__)
    app.jinja_options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}

    def now() -> dict[str, Any]:
        now_s = time.time()
        summary, newest, events = store.summary(), store.newest(NEWEST), store.events(NEWEST)
        present, bundle = nodes(), bundle_info()
        return {
            "at_s": now_s,
            "bundle": bundle,
            "summary": summary,
            "nodes": present,
            "answers": newest,
            "events": events,
            "view": view(summary, newest, events, present, bundle, now_s),
        }

    @app.get("/")
    def page() -> str:
        return render_template("page.html", view=now()["view"])

    @app.get("/api/v1/summary")
    def summary() -> Response:
        return Response(msgspec.json.encode(now()), mimetype="application/json")

    @app.get("/api/v1/answers")
    def answers() -> Response:
        """?site=…&first=…&last=…: stored answers by sample number, at most ANSWERS_PAGE."""
        first = request.args.get("first", 0, type=int)
        last = request.args.get("last", MAX_SAMPLE, type=int)
        site = request.args.get("site", "home")
        if not (0 <= first <= MAX_SAMPLE and 0 <= last <= MAX_SAMPLE):
            return Response("first and last: expected sample numbers\n", 400, mimetype="text/plain")
        page = store.answers(site, first, last, ANSWERS_PAGE)
        return Response(msgspec.json.encode(page), mimetype="application/json")

    @app.get("/healthz")
    def healthz() -> Response:
        store.events(1)
        return Response("ok\n", mimetype="text/plain")

    @app.errorhandler(LinkError)
    def away(error: LinkError) -> Response:
        return Response(f"{error}\n", 503, mimetype="text/plain")

    @app.after_request
    def protect(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    return app


# ------------------------------------------------------------------- server


class Server:
    """A running web server; `port` is the one it got."""

    def __init__(self, app: Flask, host: str, port: int) -> None:
        self._channels: dict[int, Any] = {}
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"the page cannot listen on {host} port {port}: {error}; "
                "choose another port, or 0 for any that is free"
            ) from error
        self.port: int = listener.getsockname()[1]
        self._server = waitress.server.create_server(
            app,
            map=self._channels,
            sockets=[listener],
            ident=None,
            clear_untrusted_proxy_headers=True,
        )
        self._thread = threading.Thread(target=self._server.run, name="web", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and end every connection; a second call does nothing."""
        if not self._thread.is_alive():
            return
        # Channels belong to the server's thread: it ends once it has closed them all.
        self._server.trigger.pull_trigger(self._close_channels)
        self._thread.join(CLOSE_S)
        self._server.task_dispatcher.shutdown(timeout=CLOSE_S)

    def _close_channels(self) -> None:
        for channel in list(self._channels.values()):
            channel.close()


def serve(app: Flask, host: str = "127.0.0.1", port: int = 8080) -> Server:
    """Serve in a daemon thread; ConfigError where host and port cannot be had."""
    return Server(app, host, port)
