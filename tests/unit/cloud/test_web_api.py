"""The page's JSON: what is shown, other thresholds, labels, the demo; and every way to fail."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from cloud_app.live import BundleView, NodeView, SharingView
from cloud_app.store import Store
from cloud_app.web import board, create_app, routes
from ddnn.errors import LinkError
from ddnn.protocol.messages import Answer, WorkerState
from tests.live_made import BUNDLE, MadeDemo, MadeLive, shared_among

Make = Callable[..., Answer]
Away = Callable[[], None]
HOSTILE = "</b><script>alert('x')</script>\"><img src=x onerror=alert(1)>{{ 7*7 }}"


@pytest.fixture
def live() -> MadeLive:
    return MadeLive()


@pytest.fixture
def client(store: Store, live: MadeLive) -> FlaskClient:
    return create_app(store, live, sign_in=None).test_client()


@pytest.fixture
def lose_database(store: Store, monkeypatch: pytest.MonkeyPatch) -> Away:
    """The real store, at a database that went away."""

    def lose() -> None:
        def nothing(*_: object) -> Any:
            raise LinkError("database x: it is gone; try again")

        monkeypatch.setattr(store.database, "read", nothing)
        monkeypatch.setattr(store.database, "write", nothing)

    return lose


def get(client: FlaskClient, path: str, code: int = 200) -> Any:
    response = client.get(path)
    assert response.status_code == code, response.text
    return response.json


def post(client: FlaskClient, path: str, body: object = None) -> TestResponse:
    token = client.get("/api/v1/state").json["csrf"]
    return client.post(path, json=body, headers={"X-CSRF-Token": token})


# ----------------------------------------------------------------------- state


def test_the_state_holds_all_that_the_page_shows(
    store: Store, live: MadeLive, client: FlaskClient, make: Make
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
        "raw_bytes": 3072,
        "jpeg_bytes": 960.0,
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
    }
    assert (state["demo"], state["sites"], state["signed_in"]) == (None, ["home"], False)
    assert state["csrf"]


def test_a_state_of_a_site_is_of_that_site_only(
    store: Store, live: MadeLive, client: FlaskClient, make: Make
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


def test_only_the_newest_are_shown(store: Store, client: FlaskClient, make: Make) -> None:
    store.save([("home", make(i)) for i in range(100, 150)])
    for i in range(30):
        store.add_event(float(i), "home", "cam1", f"event-{i}")
    state = get(client, "/api/v1/state")
    assert [r["answer"]["sample"] for r in state["answers"]] == list(range(149, 129, -1))
    assert len(state["events"]) == 20


def test_without_a_broker_nothing_is_said_of_who_is_there(
    live: MadeLive, client: FlaskClient
) -> None:
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
    live: MadeLive, client: FlaskClient
) -> None:
    live.shown[1] = replace(live.shown[1], bundle="b0")
    assert get(client, "/api/v1/state")["expected_now"]["members"] == []


def test_what_a_mad_edge_reports_breaks_nothing(live: MadeLive, client: FlaskClient) -> None:
    live.shown[0] = replace(
        live.shown[0], gauges={"threshold_revision": 1e300, "threshold_local": 1e300}
    )
    assert get(client, "/api/v1/state")["thresholds"]["in_use"] is None


def test_the_page_comes_with_the_state_in_it(store: Store, client: FlaskClient, make: Make) -> None:
    store.save([("home", make(77))])
    html = client.get("/").text
    assert '"sample": 77' in html or '"sample":77' in html


def test_a_state_is_made_once_for_all_who_look(
    store: Store, live: MadeLive, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "EVERY_S", 1e9)
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


def test_the_database_away_is_said_and_the_nodes_are_shown_on(
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


def test_a_database_that_hangs_does_not_hang_the_page(
    store: Store, client: FlaskClient, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save([("home", make())])
    patience_s = 0.5
    monkeypatch.setattr(board, "PATIENCE_S", patience_s)
    monkeypatch.setattr(board, "EVERY_S", 0.001)
    go_on = threading.Event()
    real = store.summary

    def slow(*args: Any) -> Any:
        go_on.wait(60)
        return real(*args)

    monkeypatch.setattr(store, "summary", slow)
    started_s = time.monotonic()
    sites = ("home", "home", *(f"site{i}" for i in range(20)))
    for site in sites:
        state = get(client, f"/api/v1/state?site={site}")
        assert "has not answered within 0.5 s" in state["database"]
        assert state["summary"] is None
    # Waited for once, not for each of the sites, which would take 11 s.
    assert time.monotonic() - started_s < len(sites) * patience_s / 2
    go_on.set()
    monkeypatch.setattr(board, "PATIENCE_S", 60.0)
    until_s = time.monotonic() + 60
    while get(client, "/api/v1/state")["summary"] is None:
        assert time.monotonic() < until_s
    assert get(client, "/api/v1/state")["database"] == ""


def test_answers_that_wait_to_be_written_are_said_too(live: MadeLive, client: FlaskClient) -> None:
    live.away = "disk full"
    state = get(client, "/api/v1/state")
    assert (state["database"], state["summary"]["answered"]) == ("disk full", 0)


# ---------------------------------------------------------------- the numbers


def test_the_summary_is_raw_numbers(store: Store, client: FlaskClient, make: Make) -> None:
    store.save([("home", make(1)), ("shop", make(2, exit="edge", latency_s=0.25, late=True))])
    everywhere = get(client, "/api/v1/summary")
    assert (everywhere["site"], everywhere["summary"]["answered"]) == (None, 2)
    shop = get(client, "/api/v1/summary?site=shop")["summary"]
    assert (shop["answered"], shop["late"]) == (1, 1)
    assert shop["exits"]["edge"]["latency_p50_s"] == 0.25
    assert (shop["payload_bytes"], shop["wire_bytes"]) == (40.0, 150.0)


def test_answers_by_sample_number(store: Store, client: FlaskClient, make: Make) -> None:
    store.save([("home", make(i)) for i in range(1, 1200)])
    page = get(client, "/api/v1/answers?first=100&last=105")
    assert [record["answer"]["sample"] for record in page] == list(range(100, 106))
    assert len(get(client, "/api/v1/answers")) == 1000


@pytest.mark.parametrize(
    ("minutes", "step_s"), [(1, 60), (60, 60), (240, 60), (241, 120), (1440, 600), (43200, 10800)]
)
def test_a_series_has_few_points_and_the_newest_answers(
    store: Store, client: FlaskClient, make: Make, minutes: int, step_s: int
) -> None:
    store.save([("home", make(i, answered_at_s=time.time())) for i in range(5)])
    series = get(client, f"/api/v1/series?minutes={minutes}")
    assert series["step_s"] == step_s
    starts = [bucket["start_s"] for bucket in series["buckets"]]
    assert starts == list(range(starts[0], starts[-1] + 1, step_s))
    assert len(starts) <= routes.MOST_POINTS + 1
    assert starts[-1] <= time.time() < starts[-1] + 2 * step_s
    assert starts[-1] - starts[0] >= minutes * 60 - 2 * step_s
    assert sum(bucket["exits"].get("local", 0) for bucket in series["buckets"]) == 5


def test_events_and_nodes(store: Store, live: MadeLive, client: FlaskClient) -> None:
    for i in range(5):
        store.add_event(float(i), "home", "cam1", f"event-{i}")
    assert [e["what"] for e in get(client, "/api/v1/events?n=2")] == ["event-4", "event-3"]
    live.shown.append(NodeView("shop", "cam9", "device", "online"))
    assert [node["id"] for node in get(client, "/api/v1/nodes?site=shop")] == ["cam9"]
    assert len(get(client, "/api/v1/nodes")) == 5


# -------------------------------------------------------------- shared layers


def test_shared_layers_of_a_site_with_what_follows_from_them(
    live: MadeLive, client: FlaskClient
) -> None:
    assert get(client, "/api/v1/sharing") == []
    told = shared_among("live", "lost", "live", "live", "live", "live")
    live.shared = [SharingView("home", "edge", 0.5, told), SharingView("shop", "edge", 2.0, told)]
    (home,) = get(client, "/api/v1/sharing?site=home")
    assert (home["site"], home["node"], home["age_s"]) == ("home", "edge", 0.5)
    assert (home["planned"], home["to_spare"], home["states"]) == (6, 1, {"live": 5, "lost": 1})
    assert (home["sharing"]["layer"], home["sharing"]["decodable"]) == ("edge_dense", True)
    assert home["sharing"]["workers"]["worker2"] == {
        "state": "lost",
        "pieces": [1],
        "planned": True,
        "answered": 100,
        "used": 90,
        "late": 10,
        "missed": 1,
        "latency_ms": 4.0,
    }
    assert [of["site"] for of in get(client, "/api/v1/sharing")] == ["home", "shop"]
    assert get(client, "/api/v1/state?site=home")["sharing"] == [home]
    live.lose_broker()
    assert get(client, "/api/v1/sharing") == get(client, "/api/v1/state")["sharing"] == []


def test_a_state_tells_of_the_first_of_very_many_workers_and_of_all_in_numbers(
    live: MadeLive, client: FlaskClient
) -> None:
    """What goes to every page each second is bounded; who asks for the layers gets all."""
    workers = {f"worker{i:04}": WorkerState("live", [i]) for i in range(1024)}
    workers["worker0900"] = WorkerState("stalled", [900])
    told = shared_among(n=1024, k=1000, workers=workers, live_pieces=1023, decodable=True)
    live.shared = [SharingView("home", f"edge{i:02}", 0.1, told) for i in range(60)]
    shared = get(client, "/api/v1/state")["sharing"]
    assert len(shared) == board.MOST_SHARED
    for of in shared:
        assert len(of["sharing"]["workers"]) == board.MOST_WORKERS
        assert next(iter(of["sharing"]["workers"])) == "worker0900"  # trouble comes first
        assert of["states"] == {"live": 1023, "stalled": 1}
        assert (of["planned"], of["to_spare"]) == (1024, 23)
    assert len(client.get("/api/v1/state").data) < 600_000
    assert len(get(client, "/api/v1/sharing")[59]["sharing"]["workers"]) == 1024


# ----------------------------------------------------------------- thresholds


def test_thresholds_are_written_down_then_sent(
    store: Store, live: MadeLive, client: FlaskClient
) -> None:
    wanted = {"local": 0.1, "edge": 1.0}
    change = post(client, "/api/v1/thresholds", {"site": "home", "thresholds": wanted}).json
    assert live.sent == [("home", wanted, 1)]
    assert change == {
        "at_s": pytest.approx(time.time(), abs=60),
        "site": "home",
        "by": "127.0.0.1",
        "thresholds": wanted,
        "before": {"local": 0.3, "edge": 0.5},
        "revision": 1,
        "what": "applied",
        "bundle": "b1",
    }
    now = get(client, "/api/v1/thresholds")
    assert now["in_use"] == {"local": 0.3, "edge": 0.5}  # the edge has not said otherwise yet
    assert now["changes"] == [change]
    live.obey()
    now = get(client, "/api/v1/thresholds?site=home")
    assert (now["in_use"], now["revision"]) == (wanted, 1)
    assert [row["bytes"] for row in now["sweep"]] == [112.0, 62.0, 12.0]
    assert now["sweep"][1]["thresholds"] == {"local": 0.5, "edge": 0.5}


def test_what_could_not_be_sent_is_written_down_all_the_same(
    store: Store, live: MadeLive, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a threshold in use of which nobody knows who set it; it is sent at the next connect."""

    def fails(*_: object) -> None:
        raise LinkError("the broker went away just now")

    monkeypatch.setattr(live, "send_thresholds", fails)
    command = {"site": "home", "thresholds": {"local": 0.1, "edge": 0.1}}
    assert post(client, "/api/v1/thresholds", command).status_code == 200
    assert [change.revision for change in store.changes("home", 9)] == [1]


@pytest.mark.parametrize("edge_reports", [True, False])
def test_revert_brings_back_those_before_the_newest_change(
    live: MadeLive, client: FlaskClient, edge_reports: bool
) -> None:
    """Also where the edge has not yet reported what it uses."""
    first, second = {"local": 0.1, "edge": 0.1}, {"local": 0.2, "edge": 0.2}
    for wanted in (first, second):
        post(client, "/api/v1/thresholds", {"site": "home", "thresholds": wanted})
        if edge_reports:
            live.obey()
    change = post(client, "/api/v1/thresholds/revert", {"site": "home"}).json
    assert (change["thresholds"], change["before"]) == (first, second)
    assert (change["what"], change["revision"]) == ("reverted", 3)
    assert live.sent[-1] == ("home", first, 3)


def test_a_revision_is_never_used_twice(store: Store, live: MadeLive, client: FlaskClient) -> None:
    """Neither after a restart, nor where the database was made anew under a running edge."""
    command = {"site": "home", "thresholds": {"local": 0.1, "edge": 0.1}}
    post(client, "/api/v1/thresholds", command)
    again = create_app(store, live, sign_in=None).test_client()
    assert post(again, "/api/v1/thresholds", command).json["revision"] == 2
    live.shown[0] = replace(
        live.shown[0], gauges={**live.shown[0].gauges, "threshold_revision": 41.0}
    )
    assert post(client, "/api/v1/thresholds", command).json["revision"] == 42
    assert [revision for _, _, revision in live.sent] == [1, 2, 42]


@pytest.mark.parametrize(
    ("thresholds", "says"),
    [
        ({"local": 0.1}, "bundle b1 has local, edge"),
        ({"local": 0.1, "edge": 0.1, "cloud": 0.1}, "bundle b1 has local, edge"),
        ({}, "bundle b1 has local, edge"),
        ({"local": 0.1, "edge": 1.1}, "<= 1"),
        ({"local": -0.1, "edge": 1.0}, ">= 0"),
        ({"local": "x", "edge": 1.0}, "Expected `float`"),
    ],
)
def test_thresholds_that_mean_nothing_are_refused(
    store: Store, live: MadeLive, client: FlaskClient, thresholds: object, says: str
) -> None:
    response = post(client, "/api/v1/thresholds", {"site": "home", "thresholds": thresholds})
    assert response.status_code == 400
    assert says in response.json["error"]
    assert (live.sent, store.changes("home", 9)) == ([], [])


def test_without_a_broker_no_threshold_is_changed(
    store: Store, live: MadeLive, client: FlaskClient
) -> None:
    live.lose_broker()
    command = {"site": "home", "thresholds": {"local": 0.1, "edge": 0.1}}
    response = post(client, "/api/v1/thresholds", command)
    assert response.status_code == 503
    assert "nothing changed: the broker broker:1883 is away" in response.json["error"]
    assert store.changes("home", 9) == []


def test_nothing_to_revert_and_sites_that_are_not_there(
    live: MadeLive, client: FlaskClient
) -> None:
    response = post(client, "/api/v1/thresholds/revert", {"site": "home"})
    assert (response.status_code, live.sent) == (409, [])
    assert "never been changed" in response.json["error"]
    post(client, "/api/v1/thresholds", {"site": "home", "thresholds": BUNDLE.thresholds})
    live.in_use = replace(BUNDLE, id="b2")  # what was before is of another bundle
    assert post(client, "/api/v1/thresholds/revert", {"site": "home"}).status_code == 409
    live.sent.clear()
    for site in ("shop", "all"):
        response = post(client, "/api/v1/thresholds/revert", {"site": site})
        assert response.status_code == 404
        assert f"no site {site}; known: home" in response.json["error"]
    live.shown.append(NodeView("shop", "edge", "edge", "online"))
    assert "name one of the sites: home, shop" in get(client, "/api/v1/whatif", 400)["error"]


def test_what_if_beside_what_is(
    store: Store, client: FlaskClient, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    local: list[Any] = [("local", 1, 0.2)]
    asked_all: list[Any] = [("local", 1, 0.4), ("edge", 1, 0.6), ("cloud", 2, 0.7)]
    store.save([("home", make(i, exit_trace=local)) for i in range(3)])
    store.save([("home", make(9, exit="cloud", label=2, exit_trace=asked_all))])
    store.save([("home", make(10, bundle="b0", exit_trace=local))])  # of a bundle that is gone
    found = get(client, "/api/v1/whatif?local=0.5")
    assert found["thresholds"] == {"local": 0.5, "edge": 0.5}  # the other as it is in use
    assert found["recorded"]["exit_share"] == {"local": 1, "edge": 0, "cloud": 0, "unknown": 0}
    assert (found["recorded"]["samples"], found["recorded"]["accuracy"]) == (4, 1.0)
    assert found["recorded"]["bytes"] == 12.0
    assert found["sweep"]["thresholds"] == {"local": 0.5, "edge": 0.5}
    assert (found["sweep"]["accuracy"], found["sweep"]["bytes"]) == (0.93, 62.0)
    assert found["now"]["thresholds"] == {"local": 0.3, "edge": 0.5}
    assert found["now"]["recorded"]["exit_share"]["cloud"] == 0.25
    assert found["now"]["recorded"]["accuracy"] == 0.75
    store.label("home", 9, 2, "me", 1.0)
    monkeypatch.setattr(routes, "RECORDED_FRESH_S", -1.0)
    assert get(client, "/api/v1/whatif")["recorded"]["accuracy"] == 1.0  # a person's word counts


def test_what_if_asks_for_what_the_bundle_has(live: MadeLive, client: FlaskClient) -> None:
    assert get(client, "/api/v1/whatif?local=nan", 400)
    assert get(client, "/api/v1/whatif?local=1.5", 400)
    live.in_use = replace(BUNDLE, exits=("edge", "cloud"), thresholds={"edge": 0.5}, sweep=())
    assert "bundle b1 has edge" in get(client, "/api/v1/whatif?local=0.5", 400)["error"]
    live.in_use = BundleView("", 0)
    assert get(client, "/api/v1/whatif")["sweep"] is None


# ---------------------------------------------------------------------- labels


def test_a_persons_label_counts_and_can_be_taken_back(
    store: Store, client: FlaskClient, make: Make
) -> None:
    store.save([("home", make(1, truth=None))])
    record = post(client, "/api/v1/labels", {"site": "home", "sample": 1, "label": 2}).json
    assert record["labelled"] == 2
    summary = get(client, "/api/v1/summary")["summary"]
    assert (summary["labelled"], summary["known"], summary["accuracy"]) == (1, 1, 0.0)
    post(client, "/api/v1/labels", {"site": "home", "sample": 1, "label": None})
    assert get(client, "/api/v1/summary")["summary"]["known"] == 0


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({"site": "home", "sample": 5, "label": 1}, 404, "no sample 5"),
        ({"site": "home", "sample": 1, "label": 3}, 400, "0 to 2"),
        ({"site": "home", "sample": 1, "label": -1}, 400, ">= 0"),
        ({"site": "home", "sample": 2**53 + 1, "label": 1}, 400, "<="),
        ({"site": "home", "sample": 1}, 400, "label"),
        ({"site": "home", "sample": 1, "label": 1, "by": "root"}, 400, "unknown field"),
        ({"site": "HOME", "sample": 1, "label": 1}, 400, "regex"),
        ([], 400, "Expected `object`"),
        (5, 400, "Expected `object`"),
    ],
)
def test_labels_that_cannot_be(
    store: Store, client: FlaskClient, make: Make, body: object, code: int, says: str
) -> None:
    store.save([("home", make(1))])
    token = get(client, "/api/v1/state")["csrf"]
    response = client.post("/api/v1/labels", json=body, headers={"X-CSRF-Token": token})
    assert response.status_code == code
    assert says in response.json["error"]


# ------------------------------------------------------------------------ demo


def test_a_demo_shows_the_views_side_by_side(live: MadeLive, client: FlaskClient) -> None:
    live.made_demo = MadeDemo()
    response = client.get("/api/v1/demo/views/300.png")
    assert (response.mimetype, response.headers["Cache-Control"]) == ("image/png", "no-store")
    image = np.asarray(Image.open(io.BytesIO(response.data)))
    assert image.shape == (4, 3 * 5 + 2 * routes.GAP_PIXELS, 4)
    assert (image[:, :5, :3] == 300 % 256).all()
    assert image[0, 5, 3] == 0  # the gap
    assert get(client, "/api/v1/state")["demo"] == {"nodes": {"edge": True, "cam1": True}}


def test_great_views_are_made_small() -> None:
    png = routes.side_by_side(np.zeros((6, 1080, 1920, 3), np.uint8))
    width, height = Image.open(io.BytesIO(png)).size
    assert width * height <= routes.MOST_PIXELS
    assert width / height == pytest.approx(6 * 1920 / 1080, rel=0.01)


def test_in_a_demo_nodes_are_killed_and_started(live: MadeLive, client: FlaskClient) -> None:
    live.made_demo = MadeDemo()
    killed = post(client, "/api/v1/demo/nodes/cam1/kill")
    assert (killed.status_code, killed.json) == (200, {"nodes": {"edge": True, "cam1": False}})
    assert post(client, "/api/v1/demo/nodes/cam1/kill").status_code == 409  # it says why
    assert post(client, "/api/v1/demo/nodes/cam1/start").json["nodes"]["cam1"] is True
    assert post(client, "/api/v1/demo/nodes/cam9/kill").status_code == 404


def test_without_a_demo_there_is_no_picture_and_no_kill(client: FlaskClient) -> None:
    assert "no image leaves its device" in get(client, "/api/v1/demo/views/3.png", 404)["error"]
    assert post(client, "/api/v1/demo/nodes/cam1/kill").status_code == 404


def test_a_demo_that_was_ended_does_not_end_the_page(live: MadeLive, client: FlaskClient) -> None:
    class Ended(MadeDemo):
        def nodes(self) -> dict[str, bool]:
            raise LinkError("the demo does not answer; was it ended?")

    live.made_demo = Ended()
    assert get(client, "/api/v1/state")["demo"] == {"nodes": {}}
    assert post(client, "/api/v1/demo/nodes/cam1/kill").status_code == 503


# --------------------------------------------------------------- health, errors


def test_ready_is_a_real_inference_lately(live: MadeLive, client: FlaskClient) -> None:
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
def test_what_is_wrong_is_said_in_json(client: FlaskClient, path: str, code: int) -> None:
    error = get(client, path, code)
    assert list(error) == ["error"]
    assert len(error["error"]) > 5


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch", "options"])
def test_what_reads_only_reads(client: FlaskClient, method: str) -> None:
    for path in ("/", "/api/v1/summary", "/metrics"):
        response = getattr(client, method)(path)
        assert (response.status_code, response.json.keys()) == (405, {"error"})
        assert set(re.split(", ", response.headers["Allow"])) == {"GET", "HEAD"}


def test_a_bug_is_a_500_that_tells_nothing_and_a_log_that_does(
    live: MadeLive,
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(live, "bundle", broken)
    error = get(client, "/api/v1/thresholds", 500)
    assert error == {"error": "this program failed at that; its log says where"}
    assert "secret detail" in caplog.text


# -------------------------------------------------------------------- security


def test_hostile_text_stays_text(store: Store, live: MadeLive, make: Make) -> None:
    store.save([("home", make(bundle=HOSTILE[:16], missing=[HOSTILE], node=HOSTILE))])
    store.save([(HOSTILE[:64], make(2, label=0, truth=1))])
    store.add_event(1.0, HOSTILE[:64], HOSTILE[:64], HOSTILE)
    live.shown = [NodeView(HOSTILE, HOSTILE, HOSTILE, "lost", counts={HOSTILE: 1})]
    live.in_use = replace(BUNDLE, id=HOSTILE, labels=(HOSTILE, HOSTILE))
    html = create_app(store, live, sign_in=None).test_client().get("/").text
    assert "<img src=x" not in html
    assert "<script>alert" not in html
    assert "{{ 7*7 }}" in html  # as it was given: nothing renders it


@pytest.mark.parametrize(
    "path", ["/", "/api/v1/summary", "/healthz", "/metrics", "/static/page.js", "/nowhere"]
)
def test_security_headers_on_everything(client: FlaskClient, path: str) -> None:
    headers = client.get(path, buffered=True).headers  # a file is closed by who reads it
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    # An old number must never come out of a cache; a file of the page is asked for anew.
    assert headers["Cache-Control"] == ("no-cache" if "static" in path else "no-store")


def test_nothing_inline_and_nothing_from_elsewhere(client: FlaskClient) -> None:
    html = client.get("/").text
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>|javascript:", html)
    linked = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert linked
    assert all(re.match(r"/(?!/)", path) for path in linked)
    for path in linked:
        assert client.get(path, buffered=True).status_code == 200, path


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST:80", 200),
        ("127.0.0.1:1", 200),
        ("[::1]", 200),
        ("[::1]:8080", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("localhost@evil.example", 403),
        ("evil.example:80@localhost:80#", 403),
        ("192.168.1.5", 403),
        ("::1", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_without_sign_in_other_names_of_this_machine_are_refused(
    client: FlaskClient, host: str, code: int
) -> None:
    """A page elsewhere whose name resolves to 127.0.0.1 is not this page (DNS rebinding)."""
    for path in ("/", "/api/v1/state", "/static/page.js", "/nowhere"):
        response = client.get(path, headers={"Host": host}, buffered=True)
        assert response.status_code == (404 if path == "/nowhere" and code == 200 else code)


def test_a_command_needs_the_sessions_token(live: MadeLive, client: FlaskClient) -> None:
    command = {"site": "home", "thresholds": {"local": 0.1, "edge": 0.1}}
    token = get(client, "/api/v1/state")["csrf"]
    other = client.application.test_client().get("/api/v1/state").json["csrf"]
    for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": other}):
        response = client.post("/api/v1/thresholds", json=command, headers=headers)
        assert response.status_code == 400
        assert "load it again" in response.json["error"]
    assert live.sent == []
    headers = {"X-CSRF-Token": token}
    assert client.post("/api/v1/thresholds", json=command, headers=headers).status_code == 200


def test_bodies_that_are_too_great_or_no_json(client: FlaskClient) -> None:
    token = get(client, "/api/v1/state")["csrf"]
    for data, kind, code in (
        (b"x" * 20_000, "application/json", 413),
        (b'{"site": "\xff"}', "application/json", 400),
        (b"[" * 10_000, "application/json", 400),
        (b"", "application/json", 400),
        (b"site=home", "application/x-www-form-urlencoded", 415),
        (b'{"site":"home"}', "text/plain", 415),
    ):
        response = client.post(
            "/api/v1/thresholds/revert",
            data=data,
            content_type=kind,
            headers={"X-CSRF-Token": token},
        )
        assert (response.status_code, list(response.json)) == (code, ["error"]), data[:20]
