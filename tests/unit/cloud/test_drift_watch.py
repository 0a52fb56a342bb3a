"""The watch for drift reads stored answers, and reports an alarm once a day."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from cloud_app.drift import DAY_S, DriftWatch
from cloud_app.store import Store
from ddnn.exits.drift import Deviation, Observation, measure_reference
from ddnn.protocol.messages import Answer
from tests.site_builder import BUNDLE, FakeSite
from tests.unit.exits.test_drift import HIERARCHY, draw, observe

NOW_S = 1000 * DAY_S


def make_answer(make: Any, sample: int, one: Observation, bundle: str) -> Answer:
    trace = [("local", one.label, 1 - one.certainty)]
    votes = dict(one.votes)
    return make(sample, exit="local", bundle=bundle, votes=votes, exit_trace=trace)


@pytest.fixture
def watch(store: Store) -> tuple[DriftWatch, list[tuple[Any, ...]], list[float]]:
    scores = draw(np.random.default_rng(1), 800)
    reference = measure_reference(HIERARCHY, scores, scores.mean(1))
    bundle = replace(BUNDLE, devices=tuple(HIERARCHY.devices), behaviour=reference)
    events: list[tuple[Any, ...]] = []
    now = [NOW_S]
    watch = DriftWatch(store, lambda: bundle, lambda *e: events.append(e), lambda: now[0])
    return watch, events, now


def test_an_alarm_is_an_event_of_the_camera(watch: Any, store: Store, make: Any) -> None:
    drift, events, now = watch
    rng = np.random.default_rng(2)
    seen = observe(draw(rng, 400)) + observe(draw(rng, 400, dark=2))
    store.save([("home", make_answer(make, n, one, "b1")) for n, one in enumerate(seen[:400])])
    drift.compare()
    assert events == []
    assert {of.is_alarm for of in drift.read("home")} == {False}
    later = enumerate(seen[400:], 400)
    store.save([("home", make_answer(make, n, one, "b1")) for n, one in later])
    drift.compare()
    at_s, site, _, text, key = next(event for event in events if event[2] == "cam3")
    assert (at_s, site, key) == (NOW_S, "home", "drift-cam3-disagrees-1000")
    assert text.startswith("drift: names another class than all cameras together in ")
    assert "moved" in text
    assert {node for _, _, node, _, _ in events} <= {"cam3", "edge"}
    keys = {event[-1] for event in events}
    drift.compare()  # the store keeps one event of a key
    assert {event[-1] for event in events} == keys
    now[0] += DAY_S
    drift.compare()
    assert len({event[-1] for event in events}) == 2 * len(keys)


def test_only_whole_samples_of_the_bundle_in_use_count(watch: Any, store: Store, make: Any) -> None:
    drift, events, _ = watch
    dark = observe(draw(np.random.default_rng(3), 800, dark=2))
    other = [make_answer(make, n, one, "b2") for n, one in enumerate(dark[:400])]
    lacking = [
        make_answer(make, n, one._replace(votes={"cam1": one.votes["cam1"]}), "b1")
        for n, one in enumerate(dark[400:], 400)
    ]
    alone = make(900, exit="device", bundle="b1", exit_trace=[("device", 1, 0.5)])
    store.save([("home", answer) for answer in [*other, *lacking, alone]])
    drift.compare()
    assert (drift.read("home"), events) == ([], [])


def test_the_thread_ends_at_once(watch: Any) -> None:
    drift, _, _ = watch
    drift.start()
    drift.close(60.0)
    assert not drift._thread.is_alive()


def test_state_and_metrics_hold_the_deviations(live: FakeSite, client: FlaskClient) -> None:
    live.drift = [Deviation("cam1", "disagrees", 400, 0.5, 0.1, 0.9, True)]
    state = client.get("/api/v1/state?site=home").get_json()
    assert state["drift"][0]["voter"] == "cam1"
    assert state["drift"][0]["is_alarm"] is True
    metrics = client.get("/metrics").get_data(as_text=True)
    assert 'ddnn_drift{kind="disagrees",site="home",voter="cam1"} 1.0' in metrics
