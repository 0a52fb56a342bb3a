"""The JSON of the API, also without database, broker or recent inference."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from cloud_app.store import Store
from cloud_app.store import store as store_module
from cloud_app.views import NodeView
from cloud_app.web import board, routes
from tests.site_builder import FakeSite
from tests.unit.cloud.web_client import Away, Make, get


def test_the_page_opens_where_no_new_answer_has_a_label(
    store: Store, client: FlaskClient, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The totals know labels that the newest answers, of which the majority is, do not."""
    monkeypatch.setattr(store_module, "LATENCY_WINDOW", 5)
    store.save([("home", make(i, truth=0)) for i in range(3)])
    store.save([("home", make(i, truth=None)) for i in range(3, 10)])
    summary = get(client, "/api/v1/state")["summary"]
    assert (summary["known"], summary["majority"]) == (3, None)
    page = client.get("/")
    assert page.status_code == 200
    assert "10 samples are answered" in page.text


def test_the_state_contains_all_parts_of_the_page(
    store: Store, live: FakeSite, client: FlaskClient, make: Make
) -> None:
    store.save([("home", make(i)) for i in range(3)])
    store.add_event(5.0, "home", "cam2", "died")
    state = get(client, "/api/v1/state")
    assert abs(state["at_s"] - time.time()) < 60
    assert state["bundle"] == {
        "id": "b1",
        "labels": ["car", "bus", "person"],
        "exits": ["local", "edge", "cloud"],
        "devices": ["cam1", "cam2", "cam3"],
        "lead": "edge",
        "raw_bytes": 3072,
        "jpeg_bytes": 960.0,
        "recall": {},
        "majority": None,
    }
    assert state["link"] == {
        "connected": True,
        "broker": "broker:1883",
        "for_s": 60.0,
        "reason": "",
    }
    assert state["database"] == ""
    assert [(n["id"], n["state"], n["wanted"]) for n in state["nodes"]] == [
        ("edge", "online", True),
        ("cam1", "online", True),
        ("cam2", "lost", True),
        ("cam3", "stopped", True),
    ]
    assert state["nodes"][0]["counts"]["bytes_sent"] == 12_345
    assert (state["summary"]["answered"], state["summary"]["accuracy"]) == (3, 1.0)
    assert [record["answer"]["sample"] for record in state["answers"]] == [2, 1, 0]
    assert state["events"] == [{"at_s": 5.0, "site": "home", "node": "cam2", "what": "died"}]
    assert state["expected_now"] == {
        "members": ["cam1"],
        "missing": ["cam2", "cam3"],
        "accuracy": 0.7,
    }
    assert state["thresholds"] == {
        "in_use": {"local": 0.3, "edge": 0.5},
        "own": {"local": 0.3, "edge": 0.5},
        "revision": 0,
        "audit_share": None,
    }
    assert (state["demo"], state["sites"], state["signed_in"]) == (None, ["home"], False)
    assert state["csrf"]


def test_the_state_of_a_site_contains_that_site_only(
    store: Store, live: FakeSite, client: FlaskClient, make: Make
) -> None:
    store.save([("home", make(1)), ("shop", make(7))])
    store.add_event(1.0, "shop", "cam9", "died")
    live.shown += [
        NodeView("shop", "cam9", "device", "online"),
        NodeView("all", "cloud", "cloud", "online"),  # serves every site
    ]
    shop = get(client, "/api/v1/state?site=shop")
    assert [node["id"] for node in shop["nodes"]] == ["cam9", "cloud"]
    assert [node["wanted"] for node in shop["nodes"]] == [False, False]
    assert [record["answer"]["sample"] for record in shop["answers"]] == [7]
    assert [event["node"] for event in shop["events"]] == ["cam9"]
    assert (shop["summary"]["answered"], shop["sites"]) == (1, ["home", "shop"])
    assert shop["thresholds"]["in_use"] is None
    both = get(client, "/api/v1/state")
    assert (both["summary"]["answered"], len(both["nodes"])) == (2, 6)
    # Which devices are there is asked of one site.
    assert both["expected_now"] == {"members": [], "missing": [], "accuracy": None}


def test_only_the_newest_answers_and_events_are_shown(
    store: Store, client: FlaskClient, make: Make
) -> None:
    store.save([("home", make(i)) for i in range(100, 150)])
    for i in range(30):
        store.add_event(float(i), "home", "cam1", f"event-{i}")
    state = get(client, "/api/v1/state")
    assert [r["answer"]["sample"] for r in state["answers"]] == list(range(149, 129, -1))
    assert len(state["events"]) == 20


def test_without_a_broker_no_device_is_expected(live: FakeSite, client: FlaskClient) -> None:
    live.lose_broker()
    state = get(client, "/api/v1/state")
    assert state["link"] == {
        "connected": False,
        "broker": "broker:1883",
        "for_s": 3.0,
        "reason": "connection refused",
    }
    assert state["expected_now"] == {"members": [], "missing": [], "accuracy": None}
    assert (state["thresholds"]["in_use"], state["thresholds"]["revision"]) == (None, None)


def test_a_device_of_another_bundle_does_not_contribute(
    live: FakeSite, client: FlaskClient
) -> None:
    live.shown[1] = replace(live.shown[1], bundle="b0")
    assert get(client, "/api/v1/state")["expected_now"]["members"] == []


def test_absurd_thresholds_of_an_edge_are_ignored(live: FakeSite, client: FlaskClient) -> None:
    live.shown[0] = replace(
        live.shown[0], gauges={"threshold_revision": 1e300, "threshold_local": 1e300}
    )
    assert get(client, "/api/v1/state")["thresholds"]["in_use"] is None


def test_the_page_contains_the_state(store: Store, client: FlaskClient, make: Make) -> None:
    store.save([("home", make(77))])
    html = client.get("/").text
    assert '"sample": 77' in html or '"sample":77' in html


def test_one_state_is_made_for_all_viewers(
    store: Store, live: FakeSite, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "PERIOD_S", 1e9)
    app = client.application
    threads = [
        threading.Thread(target=lambda: app.test_client().get("/api/v1/state")) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert live.asked == 1


# ------------------------------------------------------------- database, hangs


def test_without_the_database_the_state_has_its_error_and_the_nodes(
    client: FlaskClient, lose_database: Away
) -> None:
    lose_database()
    state = get(client, "/api/v1/state")
    assert state["database"] == "database x: it is gone; try again"
    assert (state["summary"], state["answers"], state["events"]) == (None, [], [])
    assert len(state["nodes"]) == 4
    assert client.get("/").status_code == 200
    assert client.get("/healthz").status_code == 200
    token = state["csrf"]
    for path in ("summary", "answers", "series", "events", "thresholds", "whatif"):
        error = get(client, f"/api/v1/{path}", 503)
        assert error == {"error": "database x: it is gone; try again"}
    for path, body in (
        ("thresholds", {"site": "home", "thresholds": {"local": 0.1, "edge": 0.1}}),
        ("thresholds/revert", {"site": "home"}),
        ("labels", {"site": "home", "sample": 1, "label": 1}),
    ):
        response = client.post(f"/api/v1/{path}", json=body, headers={"X-CSRF-Token": token})
        assert response.status_code == 503
        assert "it is gone" in response.json["error"]


def test_a_database_that_hangs_does_not_block_the_page(
    store: Store, client: FlaskClient, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save([("home", make())])
    patience_s = 0.5
    monkeypatch.setattr(board, "DATABASE_TIMEOUT_S", patience_s)
    monkeypatch.setattr(board, "PERIOD_S", 0.001)
    go_on = threading.Event()
    real = store.summarize

    def summarize_slowly(*args: Any) -> Any:
        go_on.wait(60)
        return real(*args)

    monkeypatch.setattr(store, "summarize", summarize_slowly)
    started_s = time.monotonic()
    sites = ("home", "home", *(f"site{i}" for i in range(20)))
    for site in sites:
        state = get(client, f"/api/v1/state?site={site}")
        assert "has not answered within 0.5 s" in state["database"]
        assert state["summary"] is None
    # Waited for once, not for each of the sites, which would take 11 s.
    assert time.monotonic() - started_s < len(sites) * patience_s / 2
    go_on.set()
    monkeypatch.setattr(board, "DATABASE_TIMEOUT_S", 60.0)
    until_s = time.monotonic() + 60
    while get(client, "/api/v1/state")["summary"] is None:
        assert time.monotonic() < until_s
    assert get(client, "/api/v1/state")["database"] == ""


def test_the_state_reports_that_answers_cannot_be_written(
    live: FakeSite, client: FlaskClient
) -> None:
    live.away = "disk full"
    state = get(client, "/api/v1/state")
    assert (state["database"], state["summary"]["answered"]) == ("disk full", 0)


# ---------------------------------------------------------------- the numbers


def test_the_summary_contains_raw_numbers(store: Store, client: FlaskClient, make: Make) -> None:
    store.save([("home", make(1)), ("shop", make(2, exit="edge", latency_s=0.25, late=True))])
    everywhere = get(client, "/api/v1/summary")
    assert (everywhere["site"], everywhere["summary"]["answered"]) == (None, 2)
    shop = get(client, "/api/v1/summary?site=shop")["summary"]
    assert (shop["answered"], shop["late"]) == (1, 1)
    assert shop["exits"]["edge"]["latency_p50_s"] == 0.25
    assert (shop["payload_bytes"], shop["wire_bytes"]) == (40.0, 150.0)


def test_answers_are_listed_by_sample_number(store: Store, client: FlaskClient, make: Make) -> None:
    store.save([("home", make(i)) for i in range(1, 1200)])
    page = get(client, "/api/v1/answers?first=100&last=105")
    assert [record["answer"]["sample"] for record in page] == list(range(100, 106))
    assert len(get(client, "/api/v1/answers")) == 1000


@pytest.mark.parametrize(
    ("minutes", "step_s"), [(1, 60), (60, 60), (240, 60), (241, 120), (1440, 600), (43200, 10800)]
)
def test_a_series_has_bounded_points_and_the_newest_answers(
    store: Store, client: FlaskClient, make: Make, minutes: int, step_s: int
) -> None:
    store.save([("home", make(i, answered_at_s=time.time())) for i in range(5)])
    series = get(client, f"/api/v1/series?minutes={minutes}")
    assert series["step_s"] == step_s
    starts = [bucket["start_s"] for bucket in series["buckets"]]
    assert starts == list(range(starts[0], starts[-1] + 1, step_s))
    assert len(starts) <= routes.MAX_POINTS + 1
    assert starts[-1] <= time.time() < starts[-1] + 2 * step_s
    assert starts[-1] - starts[0] >= minutes * 60 - 2 * step_s
    assert sum(bucket["exits"].get("local", 0) for bucket in series["buckets"]) == 5


def test_events_and_nodes_are_listed(store: Store, live: FakeSite, client: FlaskClient) -> None:
    for i in range(5):
        store.add_event(float(i), "home", "cam1", f"event-{i}")
    assert [e["what"] for e in get(client, "/api/v1/events?n=2")] == ["event-4", "event-3"]
    live.shown.append(NodeView("shop", "cam9", "device", "online"))
    assert [node["id"] for node in get(client, "/api/v1/nodes?site=shop")] == ["cam9"]
    assert len(get(client, "/api/v1/nodes")) == 5


def test_recall_and_majority_stand_beside_the_accuracy(
    store: Store, live: FakeSite, client: FlaskClient, make: Make
) -> None:
    truths = [0] * 8 + [1] * 2 + [-1]  # the last one shows nothing
    store.save([("home", make(n, label=0, truth=truth)) for n, truth in enumerate(truths)])
    summary = get(client, "/api/v1/summary")["summary"]
    assert (summary["accuracy"], summary["majority"]) == (0.8, 0.8)  # it names one class always
    assert summary["recall"] == {"0": 1.0, "1": 0.0}
    store.set_label("home", 9, 0, "somebody", 1.0)  # a person says otherwise
    assert get(client, "/api/v1/summary")["summary"]["recall"] == {"0": 1.0, "1": 0.0}
    store.set_label("home", 8, 0, "somebody", 1.0)
    assert get(client, "/api/v1/summary")["summary"]["recall"] == {"0": 1.0}
    live.bundle = replace(live.bundle, recall={"car": 0.5, "bus": 1.0}, majority=0.4)
    bundle = get(client, "/api/v1/state")["bundle"]
    assert (bundle["recall"], bundle["majority"]) == ({"car": 0.5, "bus": 1.0}, 0.4)


def test_readiness_requires_a_recent_inference(live: FakeSite, client: FlaskClient) -> None:
    assert get(client, "/readyz") == {"inference_age_s": 1.0}
    live.inferred_s = 61.0
    assert "no inference for 61 s" in get(client, "/readyz", 503)["error"]
    live.inferred_s = None
    assert "no inference seen yet" in get(client, "/readyz", 503)["error"]
    live.inferred_s, live.away = 1.0, "disk full"
    assert "cannot be written: disk full" in get(client, "/readyz", 503)["error"]
    live.away = ""
    live.lose_broker()
    assert "no broker at broker:1883: connection refused" in get(client, "/readyz", 503)["error"]
    assert client.get("/healthz").text == "ok\n"  # the process lives all the same


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/nowhere", 404),
        ("/api/v1/nowhere", 404),
        ("/static/../app.py", 404),
        ("/static/vendor/package.json", 404),
        ("/api/v1/summary?sight=home", 400),
        ("/api/v1/summary?site=HOME", 400),
        ("/api/v1/summary?site=home%0a", 400),
        ("/api/v1/answers?first=-1", 400),
        ("/api/v1/answers?last=9007199254740993", 400),
        ("/api/v1/series?minutes=0", 400),
        ("/api/v1/series?minutes=1e9", 400),
        ("/api/v1/events?n=1001", 400),
        ("/api/v1/demo/views/x.png", 400),
        ("/api/v1/demo/views/99999999999999999999.png", 400),
    ],
)
def test_errors_are_json(client: FlaskClient, path: str, code: int) -> None:
    error = get(client, path, code)
    assert list(error) == ["error"]
    assert len(error["error"]) > 5


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch", "options"])
def test_routes_that_read_refuse_other_methods(client: FlaskClient, method: str) -> None:
    for path in ("/", "/api/v1/summary", "/metrics"):
        response = getattr(client, method)(path)
        assert (response.status_code, response.json.keys()) == (405, {"error"})
        assert set(re.split(", ", response.headers["Allow"])) == {"GET", "HEAD"}


def test_a_defect_gives_a_500_without_details_and_a_log_entry(
    live: FakeSite,
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(live, "list_nodes", fail)
    error = get(client, "/api/v1/thresholds", 500)
    assert error == {"error": "this program failed at this request; see its log"}
    assert "secret detail" in caplog.text


def test_a_state_is_bounded_whatever_peers_publish(live: FakeSite, client: FlaskClient) -> None:
    """Thousands of made-up ids with as many figures as a message may hold."""
    figures = {f"{n:064d}": float(n) for n in range(256)}
    flood = [
        replace(node, id=f"made-up-{n}", role="worker", state="online", gauges=dict(figures))
        for n, node in enumerate([live.shown[1]] * 10_000)
    ]
    own = [node.id for node in live.shown]
    live.shown = [*flood, *live.shown]
    reply = client.get("/api/v1/state")
    state = reply.json
    assert len(reply.data) < 3 << 20
    assert state["nodes_hidden"] == 10_000 + len(own) - board.MAX_NODES
    assert [node["id"] for node in state["nodes"][-len(own) :]] == own
    live.shown = live.shown[-len(own) :]


def test_a_state_holds_all_nodes_of_an_ordinary_site(client: FlaskClient) -> None:
    assert get(client, "/api/v1/state")["nodes_hidden"] == 0
