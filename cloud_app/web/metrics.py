"""What Prometheus scrapes: totals that the store keeps, and the nodes as they are. No scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import get_args, get_type_hints

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from cloud_app.live import Live, NodeView, SharingView
from cloud_app.store import LATENCY_BOUNDS_S, Store
from ddnn.errors import LinkError
from ddnn.protocol.messages import DROPS, WorkerState
from ddnn.runtime.service import ddnn_version

METRICS_TYPE = CONTENT_TYPE_PLAIN_0_0_4
WORKER_STATES: tuple[str, ...] = get_args(get_type_hints(WorkerState)["state"])


class Metrics(Collector):
    """Collects anew at every scrape."""

    def __init__(self, store: Store, live: Live) -> None:
        self._store, self._live = store, live
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: to register must not read the database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        live = self._live
        build = {"version": ddnn_version(), "bundle": live.bundle().id}
        yield InfoMetricFamily("ddnn_build", "The program and the bundle in use.", build)
        broker = "Whether the broker is connected."
        yield GaugeMetricFamily("ddnn_broker_up", broker, float(live.link().connected))
        up = not live.database_away()
        try:
            samples = list(_samples(self._store))
        except LinkError:
            up, samples = False, []
        database = "Whether answers can be written and read."
        yield GaugeMetricFamily("ddnn_database_up", database, float(up))
        yield from samples
        yield from _nodes(live.nodes(), live.link().connected)
        yield from _sharing(live.sharing())


def _samples(store: Store) -> Iterator[Metric]:
    answered = CounterMetricFamily(
        "ddnn_samples",
        "Samples by the exit and quality of their first answer.",
        labels=("site", "exit", "quality"),
    )
    durations = HistogramMetricFamily(
        "ddnn_end_to_end_duration_seconds", "From capture to answer.", labels=("site", "exit")
    )
    # Gauges: they fall where a label is taken back.
    labelled = GaugeMetricFamily(
        "ddnn_labelled_samples", "Samples whose truth is known.", labels=("site",)
    )
    correct = GaugeMetricFamily(
        "ddnn_correct_samples",
        "Of the labelled samples, those answered rightly.",
        labels=("site",),
    )
    for site, (known, right) in sorted(store.truths().items()):
        for (exit_, quality), count in sorted(store.totals(site).items()):
            answered.add_metric((site, exit_, quality), count)
        for exit_, histogram in sorted(store.histogram(site).items()):
            bounds = [*(str(float(b)) for b in LATENCY_BOUNDS_S), "+Inf"]
            buckets = list(zip(bounds, accumulate(map(float, histogram.buckets)), strict=True))
            durations.add_metric((site, exit_), buckets, histogram.sum_s)
        labelled.add_metric((site,), known)
        correct.add_metric((site,), right)
    yield from (answered, durations, labelled, correct)


def _nodes(nodes: Iterable[NodeView], connected: bool) -> Iterator[Metric]:
    names = ("site", "node")
    up = GaugeMetricFamily(
        "ddnn_node_up",
        "Whether the node is online; 0 while there is no broker to tell.",
        labels=(*names, "role"),
    )
    age = GaugeMetricFamily(
        "ddnn_node_last_seen_age_seconds", "Since the node's last message.", labels=names
    )
    memory = GaugeMetricFamily("ddnn_node_memory_bytes", "Resident memory.", labels=names)
    sent = CounterMetricFamily(
        "ddnn_link_transmit_bytes",
        "What the node published, with topics and headers.",
        labels=names,
    )
    camera = GaugeMetricFamily("ddnn_camera_up", "Whether the camera gives frames.", labels=names)
    dropped = CounterMetricFamily(
        "ddnn_node_dropped", "What the node let go, by reason.", labels=(*names, "reason")
    )
    for node in nodes:
        key = (node.site, node.id)
        up.add_metric((*key, node.role), float(connected and node.state == "online"))
        if node.last_seen_age_s is not None:
            age.add_metric(key, node.last_seen_age_s)
        if "camera_up" in node.gauges:
            camera.add_metric(key, node.gauges["camera_up"])
        if node.memory_bytes:
            memory.add_metric(key, node.memory_bytes)
        if "bytes_sent" in node.counts:
            sent.add_metric(key, node.counts["bytes_sent"])
        for reason in sorted(DROPS):
            if reason in node.counts:
                dropped.add_metric((*key, reason), node.counts[reason])
    yield from (up, age, memory, sent, dropped)


def _sharing(shared: Iterable[SharingView]) -> Iterator[Metric]:
    names = ("site", "node")
    workers = GaugeMetricFamily(
        "ddnn_workers",
        "Workers of the layer that the node shares, by their state.",
        labels=(*names, "state"),
    )
    decodable = GaugeMetricFamily(
        "ddnn_shared_decodable", "Whether the live workers suffice.", labels=names
    )
    to_spare = GaugeMetricFamily(
        "ddnn_shared_workers_to_spare",
        "Live workers that may vanish, whichever they are.",
        labels=names,
    )
    gather = GaugeMetricFamily(
        "ddnn_shared_gather_seconds", "From task to enough answers, smoothed.", labels=names
    )
    decode = GaugeMetricFamily("ddnn_shared_decode_seconds", "Decoding, smoothed.", labels=names)
    decoded = CounterMetricFamily(
        "ddnn_shared_decoded", "Samples whose layer was decoded.", labels=names
    )
    computed_here = CounterMetricFamily(
        "ddnn_shared_computed_here", "Samples whose layer the node computed itself.", labels=names
    )
    given_up = CounterMetricFamily(
        "ddnn_shared_given_up",
        "Samples without the layer: a shallower exit answered.",
        labels=names,
    )
    for view in shared:
        key, told, states = (view.site, view.node), view.sharing, view.states
        for state in WORKER_STATES:
            workers.add_metric((*key, state), states.get(state, 0))
        decodable.add_metric(key, float(told.decodable))
        to_spare.add_metric(key, view.to_spare)
        gather.add_metric(key, told.gather_ms / 1e3)
        decode.add_metric(key, told.decode_ms / 1e3)
        decoded.add_metric(key, told.decoded)
        computed_here.add_metric(key, told.computed_here)
        given_up.add_metric(key, told.given_up)
    yield from (workers, decodable, to_spare, gather, decode, decoded, computed_here, given_up)
