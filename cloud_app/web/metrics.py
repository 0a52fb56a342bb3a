"""The metrics for Prometheus: totals that the store keeps (no scan of answers), and the nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
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

from cloud_app.store import LATENCY_BOUNDS_S, Store
from cloud_app.views import LiveSite, NodeView, OffloadView, find_wanted
from ddnn.errors import LinkError
from ddnn.protocol.drops import DROPS
from ddnn.protocol.offload_state import WorkerState
from ddnn.runtime.service import find_ddnn_version

METRICS_TYPE = CONTENT_TYPE_PLAIN_0_0_4
WORKER_STATES: tuple[str, ...] = get_args(get_type_hints(WorkerState)["state"])


class Metrics(Collector):
    """Collects the values at every scrape."""

    def __init__(self, store: Store, live: LiveSite) -> None:
        self._store, self._live = store, live
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def make_exposition(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """No metrics: registering must not read the database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        live = self._live
        build = {"version": find_ddnn_version(), "bundle": live.bundle.id}
        yield InfoMetricFamily("ddnn_build", "The program and the bundle in use.", build)
        broker = "Whether the broker is connected."
        yield GaugeMetricFamily("ddnn_broker_up", broker, float(live.read_link().connected))
        up = not live.find_database_error()
        try:
            samples = list(_collect_samples(self._store))
        except LinkError:
            up, samples = False, []
        database = "Whether answers can be written and read."
        yield GaugeMetricFamily("ddnn_database_up", database, float(up))
        yield from samples
        nodes, offloads = live.list_nodes(), live.list_offloads()
        wanted = find_wanted(nodes, offloads, live.bundle)
        yield self._collect_drift()
        yield from _collect_nodes(nodes, live.read_link().connected, wanted)
        yield from _collect_offloads(offloads)

    def _collect_drift(self) -> Metric:
        drift = GaugeMetricFamily(
            "ddnn_drift",
            "Whether a camera or the first exit behaves otherwise than on validation data.",
            labels=("site", "voter", "kind"),
        )
        for site in sorted({node.site for node in self._live.list_nodes()}):
            for deviation in self._live.read_drift(site):
                labels = (site, deviation.voter, deviation.kind)
                drift.add_metric(labels, float(deviation.is_alarm))
        return drift


def _collect_samples(store: Store) -> Iterator[Metric]:
    answered = CounterMetricFamily(
        "ddnn_samples",
        "Samples by the exit and quality of their first answer.",
        labels=("site", "exit", "quality"),
    )
    durations = HistogramMetricFamily(
        "ddnn_end_to_end_duration_seconds", "From capture to answer.", labels=("site", "exit")
    )
    # Gauges and not counters: they fall where a label is taken back.
    labelled = GaugeMetricFamily(
        "ddnn_labelled_samples", "Samples whose truth is known.", labels=("site",)
    )
    correct = GaugeMetricFamily(
        "ddnn_correct_samples",
        "Labelled samples whose answer is correct.",
        labels=("site",),
    )
    for site, (known, right) in sorted(store.count_truths().items()):
        for (exit_, quality), count in sorted(store.count_samples(site).items()):
            answered.add_metric((site, exit_, quality), count)
        for exit_, histogram in sorted(store.read_histograms(site).items()):
            bounds = [*(str(float(b)) for b in LATENCY_BOUNDS_S), "+Inf"]
            buckets = list(zip(bounds, accumulate(map(float, histogram.buckets)), strict=True))
            durations.add_metric((site, exit_), buckets, histogram.sum_s)
        labelled.add_metric((site,), known)
        correct.add_metric((site,), right)
    yield from (answered, durations, labelled, correct)


def _collect_nodes(
    nodes: Iterable[NodeView], connected: bool, wanted: Collection[tuple[str, str]]
) -> Iterator[Metric]:
    names = ("site", "node")
    up = GaugeMetricFamily(
        "ddnn_node_up",
        "Whether the node is online; 0 while the broker is away.",
        labels=(*names, "role"),
    )
    want = GaugeMetricFamily(
        "ddnn_node_wanted",
        "Whether the site lacks something without the node: of the bundle, or holding pieces.",
        labels=names,
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
    taken = GaugeMetricFamily(
        "ddnn_ticks_taken_ratio", "The share of ticks that the site takes.", labels=names
    )
    shed = CounterMetricFamily(
        "ddnn_samples_shed", "Samples that the site could not take.", labels=names
    )
    dropped = CounterMetricFamily(
        "ddnn_node_dropped", "What the node dropped, by reason.", labels=(*names, "reason")
    )
    for node in nodes:
        key = (node.site, node.id)
        up.add_metric((*key, node.role), float(connected and node.state == "online"))
        want.add_metric(key, float(key in wanted))
        if node.last_seen_age_s is not None:
            age.add_metric(key, node.last_seen_age_s)
        if "camera_up" in node.gauges:
            camera.add_metric(key, node.gauges["camera_up"])
        if "share_taken" in node.gauges:
            taken.add_metric(key, node.gauges["share_taken"])
        if "samples_shed" in node.counts:
            shed.add_metric(key, node.counts["samples_shed"])
        if node.memory_bytes:
            memory.add_metric(key, node.memory_bytes)
        if "bytes_sent" in node.counts:
            sent.add_metric(key, node.counts["bytes_sent"])
        for reason in sorted(DROPS):
            if reason in node.counts:
                dropped.add_metric((*key, reason), node.counts[reason])
    yield from (up, want, age, memory, sent, camera, taken, shed, dropped)


def _collect_offloads(views: Iterable[OffloadView]) -> Iterator[Metric]:
    names = ("site", "node")
    workers = GaugeMetricFamily(
        "ddnn_workers", "Workers that the node gives work to, by state.", labels=(*names, "state")
    )
    enough = GaugeMetricFamily(
        "ddnn_offload_enough", "Whether the live workers suffice.", labels=names
    )
    spare = GaugeMetricFamily(
        "ddnn_offload_spare_workers",
        "Live workers that may vanish, in any combination.",
        labels=names,
    )
    gather = GaugeMetricFamily(
        "ddnn_offload_gather_seconds", "From task to enough results, smoothed.", labels=names
    )
    combine = GaugeMetricFamily(
        "ddnn_offload_combine_seconds", "Combining the results, smoothed.", labels=names
    )
    combined = CounterMetricFamily(
        "ddnn_offload_combined", "Samples combined from the workers' results.", labels=names
    )
    combined_partly = CounterMetricFamily(
        "ddnn_offload_combined_partly", "Of them, without some workers' results.", labels=names
    )
    computed_here = CounterMetricFamily(
        "ddnn_offload_computed_here", "Samples that the node computed itself.", labels=names
    )
    given_up = CounterMetricFamily(
        "ddnn_offload_given_up",
        "Samples that a shallower exit answered, because the section could not be computed.",
        labels=names,
    )
    for view in views:
        key, state = (view.site, view.node), view.state
        for name in WORKER_STATES:
            workers.add_metric((*key, name), view.worker_states.get(name, 0))
        enough.add_metric(key, float(state.enough))
        spare.add_metric(key, state.spare_workers)
        gather.add_metric(key, state.gather_ms / 1e3)
        combine.add_metric(key, state.combine_ms / 1e3)
        combined.add_metric(key, state.combined)
        combined_partly.add_metric(key, state.combined_partly)
        computed_here.add_metric(key, state.computed_here)
        given_up.add_metric(key, state.given_up)
    yield from (workers, enough, spare, gather, combine)
    yield from (combined, combined_partly, computed_here, given_up)
