"""Thresholds over the API: estimates, changes and refusals."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient

from cloud_app.store import Store
from cloud_app.views import BundleView, NodeView
from cloud_app.web import create_app, threshold_routes
from ddnn.errors import LinkError
from tests.answer_builder import make_answer
from tests.site_builder import BUNDLE, FakeSite
from tests.unit.cloud.web_client import Make, get, post


def test_thresholds_are_stored_before_they_are_sent(
    store: Store, live: FakeSite, client: FlaskClient
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


def test_a_change_is_stored_even_where_sending_it_fails(
    store: Store, live: FakeSite, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every threshold in use has a stored change. The next connect sends it."""

    def fails(*_: object) -> None:
        raise LinkError("the broker went away just now")

    monkeypatch.setattr(live, "send_thresholds", fails)
    command = {"site": "home", "thresholds": {"local": 0.1, "edge": 0.1}}
    assert post(client, "/api/v1/thresholds", command).status_code == 200
    assert [change.revision for change in store.list_changes("home", 9)] == [1]


@pytest.mark.parametrize("edge_reports", [True, False])
def test_revert_restores_the_thresholds_before_the_newest_change(
    live: FakeSite, client: FlaskClient, edge_reports: bool
) -> None:
    """This also holds where the edge has not reported its thresholds yet."""
    first, second = {"local": 0.1, "edge": 0.1}, {"local": 0.2, "edge": 0.2}
    for wanted in (first, second):
        post(client, "/api/v1/thresholds", {"site": "home", "thresholds": wanted})
        if edge_reports:
            live.obey()
    change = post(client, "/api/v1/thresholds/revert", {"site": "home"}).json
    assert (change["thresholds"], change["before"]) == (first, second)
    assert (change["what"], change["revision"]) == ("reverted", 3)
    assert live.sent[-1] == ("home", first, 3)


def test_a_revision_is_never_used_twice(store: Store, live: FakeSite, client: FlaskClient) -> None:
    """It is not used again after a restart, or where a running edge meets a new database."""
    command = {"site": "home", "thresholds": {"local": 0.1, "edge": 0.1}}
    post(client, "/api/v1/thresholds", command)
    again = create_app(store, live, sign_in=None).test_client()
    assert post(again, "/api/v1/thresholds", command).json["revision"] == 2
    live.shown[0] = replace(
        live.shown[0], gauges={**live.shown[0].gauges, "threshold_revision": 41.0}
    )
    assert post(client, "/api/v1/thresholds", command).json["revision"] == 42
    assert [revision for _, _, revision in live.sent] == [1, 2, 42]


@pytest.mark.parametrize("claimed", [2.0**40, 2.0**53 - 1, 1e300])
def test_a_revision_that_the_edge_cannot_use_is_not_followed(
    live: FakeSite, client: FlaskClient, claimed: float
) -> None:
    """Statistics are not signed: after such a revision the edge would take no command any more."""
    command = {"site": "home", "thresholds": {"local": 0.1, "edge": 0.1}}
    live.shown[0] = replace(
        live.shown[0], gauges={**live.shown[0].gauges, "threshold_revision": claimed}
    )
    assert post(client, "/api/v1/thresholds", command).json["revision"] == 1


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
def test_invalid_thresholds_are_refused(
    store: Store, live: FakeSite, client: FlaskClient, thresholds: object, says: str
) -> None:
    response = post(client, "/api/v1/thresholds", {"site": "home", "thresholds": thresholds})
    assert response.status_code == 400
    assert says in response.json["error"]
    assert (live.sent, store.list_changes("home", 9)) == ([], [])


def test_without_a_broker_no_threshold_is_changed(
    store: Store, live: FakeSite, client: FlaskClient
) -> None:
    live.lose_broker()
    command = {"site": "home", "thresholds": {"local": 0.1, "edge": 0.1}}
    response = post(client, "/api/v1/thresholds", command)
    assert response.status_code == 503
    assert "nothing changed: the broker broker:1883 is away" in response.json["error"]
    assert store.list_changes("home", 9) == []


def test_reverting_without_a_change_and_unknown_sites_are_refused(
    live: FakeSite, client: FlaskClient
) -> None:
    response = post(client, "/api/v1/thresholds/revert", {"site": "home"})
    assert (response.status_code, live.sent) == (409, [])
    assert "never been changed" in response.json["error"]
    post(client, "/api/v1/thresholds", {"site": "home", "thresholds": BUNDLE.thresholds})
    live.bundle = replace(BUNDLE, id="b2")  # what was before is of another bundle
    assert post(client, "/api/v1/thresholds/revert", {"site": "home"}).status_code == 409
    live.sent.clear()
    for site in ("shop", "all"):
        response = post(client, "/api/v1/thresholds/revert", {"site": site})
        assert response.status_code == 404
        assert f"no site {site}; known: home" in response.json["error"]
    live.shown.append(NodeView("shop", "edge", "edge", "online"))
    assert "name one of the sites: home, shop" in get(client, "/api/v1/whatif", 400)["error"]


def test_whatif_compares_with_the_thresholds_in_use(
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
    store.set_label("home", 9, 2, "me", 1.0)
    monkeypatch.setattr(threshold_routes, "REPLAYS_MAX_AGE_S", -1.0)
    assert get(client, "/api/v1/whatif")["recorded"]["accuracy"] == 1.0  # a person's word counts


def test_whatif_refuses_exits_that_the_bundle_lacks(live: FakeSite, client: FlaskClient) -> None:
    assert get(client, "/api/v1/whatif?local=nan", 400)
    assert get(client, "/api/v1/whatif?local=1.5", 400)
    live.bundle = replace(BUNDLE, exits=("edge", "cloud"), thresholds={"edge": 0.5}, sweep=())
    assert "bundle b1 has edge" in get(client, "/api/v1/whatif?local=0.5", 400)["error"]
    live.bundle = BundleView("", 0)
    assert get(client, "/api/v1/whatif")["sweep"] is None


def test_the_front_and_the_place_of_the_site_on_it(live: FakeSite, client: FlaskClient) -> None:
    live.bundle = replace(live.bundle, uplink_bytes=20.0)
    front = get(client, "/api/v1/thresholds")["front"]
    assert [(row["accuracy"], row["bytes"], row["total_bytes"]) for row in front] == [
        (0.80, 12.0, 12.0),
        (0.93, 62.0, 67.0),
        (0.95, 112.0, 122.0),
    ]
    assert get(client, "/api/v1/whatif")["now_total_bytes"] == 67.0  # of the row nearest to 0.3


def test_the_audit_counts_sure_samples_that_went_up(
    store: Store, live: FakeSite, client: FlaskClient
) -> None:
    """Deeper exits agreed with two of three; unsure ones and those of no audit do not count."""
    live.shown[0] = replace(live.shown[0], gauges={**live.shown[0].gauges, "audit_share": 1.0})
    for sample, label, traced in (
        (1, 2, [("local", 2, 0.1), ("edge", 2, 0.1)]),
        (2, 2, [("local", 2, 0.1), ("edge", 2, 0.9), ("cloud", 2, 0.9)]),
        (3, 1, [("local", 2, 0.1), ("edge", 1, 0.1)]),
        (4, 1, [("local", 2, 0.9), ("edge", 1, 0.1)]),
        (5, 2, [("local", 2, 0.1)]),
    ):
        answer = make_answer(sample=sample, label=label, exit=traced[-1][0], bundle="b1")
        store.save([("home", msgspec.structs.replace(answer, exit_trace=traced))])
    found = get(client, "/api/v1/whatif")["audit"]
    assert (found["share"], found["audited"], found["agreed"]) == (1.0, 3, 2)
    assert found["interval"][0] < 2 / 3 < found["interval"][1]
    live.shown[0] = replace(live.shown[0], gauges={**live.shown[0].gauges, "audit_share": 0.0})
    assert get(client, "/api/v1/whatif")["audit"]["audited"] == 0
