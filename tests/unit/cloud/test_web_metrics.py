"""The metrics for Prometheus: format, conventions, and values equal to those of the store."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flask.testing import FlaskClient
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from cloud_app.store import LATENCY_BOUNDS_S, Store
from cloud_app.views import NodeView, OffloadView
from ddnn.errors import LinkError
from ddnn.protocol.drops import DROPS
from tests.site_builder import FakeSite, make_offload
from tests.unit.cloud.web_client import Make


def scrape(client: FlaskClient) -> dict[str, Metric]:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(response.text)}


def read_value(families: dict[str, Metric], name: str, **labels: str) -> float:
    (found,) = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if (sample.name, sample.labels) == (name, labels)
    ]
    return found


def test_metrics_count_samples_and_their_truth(
    store: Store, client: FlaskClient, make: Make
) -> None:
    store.save([("home", make(i)) for i in range(3)])
    store.save([("home", make(9, exit="cloud", quality="degraded", label=2))])
    store.save([("shop", make(1, truth=None))])
    store.set_label("shop", 1, 1, "me", 1.0)
    found = scrape(client)
    home = {"site": "home"}
    assert read_value(found, "ddnn_samples_total", **home, exit="local", quality="full") == 3
    assert read_value(found, "ddnn_samples_total", **home, exit="cloud", quality="degraded") == 1
    assert read_value(found, "ddnn_labelled_samples", **home) == 4
    assert read_value(found, "ddnn_correct_samples", **home) == 3
    assert read_value(found, "ddnn_correct_samples", site="shop") == 1


def test_metrics_contain_durations_as_a_histogram(
    store: Store, client: FlaskClient, make: Make
) -> None:
    """The buckets are cumulated, as Prometheus requires; the last one counts all samples."""
    for i, latency_s in enumerate((0.0005, 0.05, 0.05, 100.0)):
        store.save([("home", make(i, latency_s=latency_s))])
    found, of = scrape(client), {"site": "home", "exit": "local"}
    name = "ddnn_end_to_end_duration_seconds"
    buckets = [s for s in found[name].samples if s.name == f"{name}_bucket"]
    assert [float(s.labels["le"]) for s in buckets] == [*LATENCY_BOUNDS_S, float("inf")]
    assert read_value(found, f"{name}_bucket", **of, le="0.001") == 1
    assert read_value(found, f"{name}_bucket", **of, le="0.05") == 3
    assert read_value(found, f"{name}_bucket", **of, le="30.0") == 3
    assert read_value(found, f"{name}_bucket", **of, le="+Inf") == 4
    assert read_value(found, f"{name}_count", **of) == 4
    assert read_value(found, f"{name}_sum", **of) == pytest.approx(100.1005)


def test_nodes(live: FakeSite, client: FlaskClient) -> None:
    found = scrape(client)
    edge, lost = {"site": "home", "node": "edge"}, {"site": "home", "node": "cam2"}
    assert read_value(found, "ddnn_node_up", **edge, role="edge") == 1
    assert read_value(found, "ddnn_node_up", **lost, role="device") == 0
    assert read_value(found, "ddnn_node_last_seen_age_seconds", **lost) == 75.0
    assert read_value(found, "ddnn_node_memory_bytes", **edge) == 96_000_000
    assert read_value(found, "ddnn_link_transmit_bytes_total", **edge) == 12_345
    assert read_value(found, "ddnn_node_dropped_total", **edge, reason="scores_late") == 2
    assert read_value(found, "ddnn_node_wanted", **edge) == 1
    assert read_value(found, "ddnn_node_wanted", **lost) == 1
    # A count of something else is no drop.
    assert {s.labels["reason"] for s in found["ddnn_node_dropped"].samples} <= DROPS
    live.lose_broker()
    found = scrape(client)
    assert read_value(found, "ddnn_node_up", **edge, role="edge") == 0  # unknown
    assert read_value(found, "ddnn_broker_up") == 0


def test_offloads(live: FakeSite, client: FlaskClient) -> None:
    live.offloaded = [
        OffloadView("home", "edge", 0.5, make_offload("live", "live", "lost", "live", "live")),
        OffloadView("shop", "edge", 0.5, make_offload("faulty")),
    ]
    found, home, shop = scrape(client), *({"site": s, "node": "edge"} for s in ("home", "shop"))
    states = {
        s.labels["state"]: s.value
        for s in found["ddnn_workers"].samples
        if s.labels["site"] == "home"
    }
    assert states == {"live": 4, "loading": 0, "stalled": 0, "lost": 1, "faulty": 0}
    assert read_value(found, "ddnn_workers", **shop, state="faulty") == 1
    assert read_value(found, "ddnn_offload_enough", **home) == 1
    assert read_value(found, "ddnn_offload_enough", **shop) == 0
    assert read_value(found, "ddnn_offload_spare_workers", **home) == 0
    assert read_value(found, "ddnn_offload_combined_total", **home) == 1234
    assert read_value(found, "ddnn_offload_combined_partly_total", **home) == 0
    assert read_value(found, "ddnn_offload_computed_here_total", **home) == 5
    assert read_value(found, "ddnn_offload_given_up_total", **home) == 1
    assert read_value(found, "ddnn_offload_gather_seconds", **home) == 0.00625
    assert read_value(found, "ddnn_offload_combine_seconds", **home) == 0.000125
    live.lose_broker()
    assert scrape(client)["ddnn_workers"].samples == []  # unknown


def test_a_missing_database_is_a_value_not_an_error(
    store: Store, live: FakeSite, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_value(scrape(client), "ddnn_database_up") == 1
    live.away = "disk full"
    assert read_value(scrape(client), "ddnn_database_up") == 0
    live.away = ""

    def fail(*_: object) -> None:
        raise LinkError("gone")

    monkeypatch.setattr(store.database, "read", fail)
    found = scrape(client)
    assert read_value(found, "ddnn_database_up") == 0
    assert read_value(found, "ddnn_node_up", site="home", node="edge", role="edge") == 1


def test_metric_names_follow_the_conventions(
    store: Store, live: FakeSite, client: FlaskClient, make: Make
) -> None:
    store.save([("home", make())])
    live.offloaded = [OffloadView("home", "edge", 0.5, make_offload())]
    families = scrape(client)
    for family in families.values():
        assert family.documentation.endswith("."), family.name
        for sample in family.samples:
            assert sample.name.startswith("ddnn_")
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
    build = families["ddnn_build_info"].samples[0]
    assert build.value == 1
    assert build.labels.keys() == {"version", "bundle"}


def test_hostile_names_do_not_break_the_format(live: FakeSite, client: FlaskClient) -> None:
    odd = 'a"b\\c\nddnn_broker_up 7'
    live.shown.append(NodeView("home", odd, odd, "online", counts={"bytes_sent": 1, odd: 5}))
    found = scrape(client)
    assert read_value(found, "ddnn_broker_up") == 1
    assert read_value(found, "ddnn_link_transmit_bytes_total", site="home", node=odd) == 1


def test_nodes_with_one_name_at_two_sites_differ(live: FakeSite, client: FlaskClient) -> None:
    live.shown.append(replace(live.shown[0], site="shop", state="lost"))
    found = scrape(client)
    assert read_value(found, "ddnn_node_up", site="shop", node="edge", role="edge") == 0
    assert read_value(found, "ddnn_node_up", site="home", node="edge", role="edge") == 1


def test_what_a_site_does_without_is_not_wanted(live: FakeSite, client: FlaskClient) -> None:
    live.shown.append(NodeView("home", "once-tried", "worker", "lost"))
    live.shown.append(NodeView("home", "worker1", "worker", "lost", gauges={"camera_up": 0.0}))
    live.offloaded = [OffloadView("home", "edge", 0.5, make_offload("lost"))]
    found = scrape(client)
    assert read_value(found, "ddnn_node_wanted", site="home", node="once-tried") == 0
    assert read_value(found, "ddnn_node_wanted", site="home", node="worker1") == 1
    assert read_value(found, "ddnn_camera_up", site="home", node="worker1") == 0
