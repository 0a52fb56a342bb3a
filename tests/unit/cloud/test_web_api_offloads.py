"""The JSON of the API about work for workers."""

from __future__ import annotations

from flask.testing import FlaskClient

from cloud_app.views import OffloadView
from cloud_app.web import board
from ddnn.protocol.offload_state import WorkerState
from tests.site_builder import FakeSite, make_offload
from tests.unit.cloud.web_client import get


def test_the_offloads_of_a_site_are_listed(live: FakeSite, client: FlaskClient) -> None:
    assert get(client, "/api/v1/offload") == []
    state = make_offload("live", "lost", "live", "live", "live", "live")
    live.offloaded = [
        OffloadView("home", "edge", 0.5, state),
        OffloadView("shop", "edge", 2.0, state),
    ]
    (home,) = get(client, "/api/v1/offload?site=home")
    assert (home["site"], home["node"], home["age_s"]) == ("home", "edge", 0.5)
    assert home["worker_states"] == {"live": 5, "lost": 1}
    assert (home["state"]["title"], home["state"]["enough"]) == ("layer edge_dense", True)
    assert home["state"]["spare_workers"] == 1
    assert home["state"]["workers"]["worker2"] == {
        "state": "lost",
        "pieces": [1],
        "planned": True,
        "answered": 100,
        "used": 90,
        "late": 10,
        "missed": 1,
        "latency_ms": 4.0,
        "outage": 0.0,
        "observed_s": 0.0,
    }
    assert [of["site"] for of in get(client, "/api/v1/offload")] == ["home", "shop"]
    assert get(client, "/api/v1/state?site=home")["offloads"] == [home]
    live.lose_broker()
    assert get(client, "/api/v1/offload") == get(client, "/api/v1/state")["offloads"] == []


def test_a_state_contains_a_bounded_number_of_workers_and_counts_all(
    live: FakeSite, client: FlaskClient
) -> None:
    """The state that a page receives each second is bounded; /api/v1/offload lists all workers."""
    workers = {f"worker{i:04}": WorkerState("live", [i]) for i in range(1024)}
    workers["worker0900"] = WorkerState("stalled", [900])
    state = make_offload(pieces=1024, workers=workers, live_pieces=1023, spare_workers=23)
    live.offloaded = [OffloadView("home", f"edge{i:02}", 0.1, state) for i in range(60)]
    offloads = get(client, "/api/v1/state")["offloads"]
    assert len(offloads) == board.MAX_OFFLOADS
    for of in offloads:
        assert len(of["state"]["workers"]) == board.MAX_WORKERS
        assert next(iter(of["state"]["workers"])) == "worker0900"  # trouble comes first
        assert of["worker_states"] == {"live": 1023, "stalled": 1}
        assert (of["state"]["pieces"], of["state"]["spare_workers"]) == (1024, 23)
    assert len(client.get("/api/v1/state").data) < 600_000
    assert len(get(client, "/api/v1/offload")[59]["state"]["workers"]) == 1024
