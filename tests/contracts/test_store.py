"""The store, the same on SQLite and on PostgreSQL: one row per sample, the best answer."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from sqlalchemy import text

from cloud_app.store import LATENCY_BOUNDS_S, Change, NodeEvent, NotFound, Record, Replay, Store
from ddnn.errors import LinkError
from ddnn.exits.drift import Observation
from ddnn.exits.hierarchy import EXITS
from ddnn.exits.intervals import compute_wilson_interval
from tests.answer_builder import make_answer as make


def test_an_answer_comes_back_whole(store: Store) -> None:
    answer = make(
        2**53,
        missing=["cam9"],
        truth=None,
        expected_accuracy=None,
        eta=0.1 + 0.2,
        votes={"cam1": (2, 0.1 + 0.2), "cam2": (-1, 0.0)},
        exit_trace=[("local", 1, 0.9), ("edge", 2, 0.3)],
    )
    store.save([("home", answer)])
    assert store.list_newest(9) == [Record("home", answer, answer.answered_at_s)]
    assert store.list_answers("home", 0, 2**53, 9) == store.list_newest(9)


def test_the_better_answer_replaces_and_the_first_time_stays(store: Store) -> None:
    store.save([("home", make(exit="device", answered_at_s=3.0)), ("home", make(2))])
    store.save([("home", make(exit="cloud", answered_at_s=5.0))])
    store.save([("home", make(exit="edge", answered_at_s=4.0))])
    newest = store.list_newest(9)
    assert [record.answer.sample for record in newest] == [2, 1]  # by first arrival
    assert newest[1] == Record("home", make(exit="cloud", answered_at_s=5.0), 3.0)


def test_a_worse_answer_that_was_earlier_moves_the_first_time(store: Store) -> None:
    store.save([("home", make(exit="cloud", answered_at_s=500.0))])
    store.save([("home", make(exit="device", answered_at_s=3.0))])
    assert store.list_newest(1) == [Record("home", make(exit="cloud", answered_at_s=500.0), 3.0)]
    series = store.read_series(0, 600, 60)
    assert [sum(bucket.exits.values()) for bucket in series] == [1, *[0] * 10]


def test_of_the_unknown_samples_the_most_doubtful_come_first(store: Store) -> None:
    agree, differ = {"cam1": (1, 0.9), "cam2": (1, 0.8)}, {"cam1": (1, 0.9), "cam2": (0, 0.8)}
    answers = [
        make(1, label=1, truth=None, eta=0.2, votes=agree),
        make(2, label=1, truth=None, eta=0.2, votes=differ),
        make(3, label=1, truth=None, eta=0.6, votes=agree),
        make(4, label=1, truth=1, eta=0.9, votes=differ),
        make(5, label=1, truth=None, eta=0.9, votes=differ),
        make(6, label=1, truth=None, eta=0.1, votes={}),
    ]
    store.save([("home", answer) for answer in answers])
    store.save([("other", make(7, label=1, truth=None, eta=1.0, votes=differ))])
    store.set_label("home", 5, 0, "me", 1.0)
    found = [record.answer.sample for record in store.list_doubtful(3, "home")]
    assert found == [2, 3, 1]
    assert store.list_doubtful(1)[0].answer.sample == 7


def test_observations_are_what_the_first_exit_and_the_devices_said(store: Store) -> None:
    votes = {"cam1": (1, 0.9)}
    traced = [("local", 2, 0.25), ("edge", 1, 0.1)]
    store.save([("home", make(1, bundle="b1", votes=votes, exit_trace=traced))])
    store.save([("home", make(2, bundle="b2", votes=votes, exit_trace=traced))])
    store.save([("home", make(3, bundle="b1", exit_trace=[("device", 0, 0.5)]))])
    store.save([("home", make(4, bundle="b1", votes={}, exit_trace=[("edge", 0, 0.5)]))])
    expected = [Observation(2, 0.75, votes), Observation(0, 0.5, {})]
    assert store.list_observations(9, "home", "b1") == expected


def test_sites_are_apart(store: Store) -> None:
    assert store.list_sites() == []
    store.save([("shop", make(exit="cloud")), ("home", make())])
    assert store.summarize().answered == 2
    assert store.summarize("shop").exits["cloud"].answered == 1
    assert store.summarize("elsewhere").answered == 0
    assert [record.site for record in store.list_newest(9, "home")] == ["home"]
    assert store.count_samples("home") == {("local", "full"): 1}
    assert store.read_histograms("shop").keys() == {"cloud"}
    assert store.list_sites() == ["home", "shop"]


def test_nothing_yet(store: Store) -> None:
    store.save([])
    summary = store.summarize()
    assert (summary.answered, summary.accuracy, summary.payload_bytes) == (0, None, None)
    assert summary.accuracy_interval is None
    assert summary.exits.keys() == set(EXITS)
    assert store.list_newest(20) == store.list_events(20) == store.list_changes("home", 9) == []
    assert store.list_replays(9, "home", "b1") == store.list_answers("home", 0, 9, 9) == []
    assert store.read_histograms() == store.count_samples() == {}
    assert store.read_setting("password") is None
    assert store.prune(1e10, 0.0) == 0
    (bucket,) = store.read_series(60, 60, 60)
    assert (bucket.exits, bucket.expected_accuracy, bucket.p50_s) == ({}, None, {})


def test_the_newest_are_the_last_of_a_batch(store: Store) -> None:
    said = [("shop", 7), ("home", 9), ("shop", 3), ("home", 1)]
    store.save([(site, make(sample)) for site, sample in said])
    newest = [(record.site, record.answer.sample) for record in store.list_newest(9)]
    assert newest == said[::-1]


def test_all_is_there_after_a_restart(url: str) -> None:
    first = Store(url)
    first.save([("home", make())])
    before = first.summarize()
    first.close()
    second = Store(url)
    second.save([("home", make())])  # delivered again
    assert second.summarize() == before
    second.close()


def test_more_samples_than_one_query_takes(store: Store) -> None:
    for exit_ in ("local", "edge"):
        store.save([("home", make(i, exit=exit_)) for i in range(1200)])
    assert store.summarize().exits["edge"].answered == store.summarize().answered == 1200


def test_one_absurd_value_does_not_spoil_the_sums(store: Store) -> None:
    absurd = {
        **{"expected_accuracy": 1e308, "payload_bytes": 2**53, "wire_bytes": 2**53},
        **{"latency_s": 1e12},
    }
    store.save([("home", make(i, **absurd)) for i in range(3000)])
    assert store.read_histograms()["local"].sum_s <= 3000 * 3600
    store.save([("home", make(i, exit="edge")) for i in range(3000)])
    summary = store.summarize()
    assert summary.expected_accuracy == pytest.approx(0.9)
    assert (summary.payload_bytes, summary.wire_bytes) == (40.0, 150.0)
    assert store.summarize(last=3000).payload_bytes == 40.0


def test_an_answer_that_does_not_fit_leaves_nothing_of_its_batch(store: Store) -> None:
    for bad in (make(2, bundle="b" * 17), make(2, label=2**40), make(2**70)):
        if store.database.engine.dialect.name == "sqlite" and bad.sample == 2:
            continue  # it bounds neither
        with pytest.raises((LinkError, OverflowError)):
            store.save([("home", make(1)), ("home", bad)])
    assert (store.list_newest(9), store.count_samples(), store.summarize().answered) == ([], {}, 0)


def test_a_failure_half_way_leaves_nothing(store: Store) -> None:
    with store.database.write() as link:
        link.execute(text("ALTER TABLE totals RENAME TO away"))
    with pytest.raises(LinkError, match="totals"):
        store.save([("home", make())])
    assert store.list_newest(9) == []
    with store.database.write() as link:
        link.execute(text("ALTER TABLE away RENAME TO totals"))
    store.save([("home", make())])
    assert store.summarize().answered == 1


# ------------------------------------------------------------------- series


def test_a_series_has_every_step_and_its_ends(store: Store) -> None:
    store.save([("home", make(i, answered_at_s=600.0 + 30 * i)) for i in range(8)])
    series = store.read_series(610, 800, 60)
    assert [bucket.start_s for bucket in series] == [600, 660, 720, 780]
    assert [bucket.exits.get("local", 0) for bucket in series] == [2, 2, 2, 2]
    assert [bucket.start_s for bucket in store.read_series(610, 800, 61)] == [
        600,
        720,
    ]  # whole minutes
    assert store.read_series(610, 800, 0.5) == series
    with pytest.raises(ValueError, match="longer"):
        store.read_series(0, 1e12, 60)


def test_hours_say_what_their_minutes_say(store: Store) -> None:
    store.save([("home", make(i, answered_at_s=97.0 * i, label=i % 2)) for i in range(300)])
    minutes, hours = (store.read_series(0, 8 * 3600 - 1, step_s) for step_s in (60, 3600))
    for hour in hours:
        own = [m for m in minutes if hour.start_s <= m.start_s < hour.start_s + 3600]
        assert hour.correct == sum(minute.correct for minute in own) > 0
        assert hour.exits["local"] == sum(minute.exits.get("local", 0) for minute in own)


def test_percentiles_of_a_series_are_right_to_their_bucket(store: Store) -> None:
    generator = np.random.default_rng(5)
    latencies = generator.lognormal(-2.5, 0.8, 2000)
    store.save([("home", make(i, latency_s=t)) for i, t in enumerate(latencies.tolist())])
    (bucket,) = store.read_series(0, 0, 60)
    for q, got in ((50, bucket.p50_s["local"]), (99, bucket.p99_s["local"])):
        true = float(np.percentile(latencies, q))
        place = int(np.searchsorted(LATENCY_BOUNDS_S, true))
        assert LATENCY_BOUNDS_S[place - 1] <= got <= LATENCY_BOUNDS_S[place]
        assert got == pytest.approx(true, rel=0.15)
    histogram = store.read_histograms()["local"]
    edges = [-np.inf, *LATENCY_BOUNDS_S, np.inf]
    assert histogram.buckets == tuple(np.histogram(latencies, edges)[0])
    assert (histogram.samples, histogram.sum_s) == (2000, pytest.approx(latencies.sum()))


def test_counters_never_fall(store: Store) -> None:
    """A better answer moves its sample in the summary; a counter that fell would look like a
    program that was started again, and like all that it had counted coming in once more."""
    store.save([("home", make(i, exit="device", latency_s=0.1)) for i in range(5)])
    store.save([("home", make(i, exit="cloud", latency_s=0.2)) for i in range(2)])
    assert store.summarize().exits["cloud"].answered == 2
    assert store.count_samples() == {("device", "full"): 5}
    before = store.read_histograms()
    assert (before["device"].samples, before.keys()) == (5, {"device"})
    assert store.prune(1e10, 0.0) == 5
    assert store.read_histograms() == before


# ------------------------------------------------------------------- labels


def test_a_person_says_what_it_is(store: Store) -> None:
    store.save([("home", make(i, label=1, truth=[1, None, 2][i])) for i in range(3)])
    assert (store.summarize().accuracy, store.summarize().known) == (0.5, 2)
    record = store.set_label("home", 1, 1, "ada", 20.0)
    assert record == store.list_answers("home", 1, 1, 1)[0]
    assert (record.labelled, record.truth, record.answer.truth) == (1, 1, None)
    summary = store.summarize()
    assert (summary.accuracy, summary.known, summary.labelled) == (pytest.approx(2 / 3), 3, 1)
    assert summary.accuracy_interval == compute_wilson_interval(2, 3)
    store.set_label("home", 2, 1, "ada", 20.0)  # a person's word counts before the source's
    assert (store.summarize().accuracy, store.summarize().labelled) == (1.0, 2)
    store.set_label("home", 2, None, "ada", 21.0)
    assert store.summarize() == summary
    with pytest.raises(NotFound, match="99"):
        store.set_label("home", 99, 1, "ada", 20.0)
    with pytest.raises(NotFound):
        store.set_label("shop", 1, 1, "ada", 20.0)


# ---------------------------------------------------- events, audit, settings


def test_events_newest_first(store: Store) -> None:
    store.add_event(1.0, "home", "cam1", "joined")
    store.add_event(2.0, "home", "cam1", "lost")
    store.add_event(3.0, "home", "cam1", "joined")
    assert store.list_events(2) == [
        NodeEvent(3.0, "home", "cam1", "joined"),
        NodeEvent(2.0, "home", "cam1", "lost"),
    ]


def test_an_event_that_several_saw_is_stored_once(store: Store, url: str) -> None:
    other = Store(url)
    for seen_by in (store, other, store):
        seen_by.add_event(1.0, "home", "cam1", "died", key="7-lost")
    other.add_event(2.0, "home", "cam2", "died", key="7-lost")
    other.add_event(3.0, "shop", "cam1", "died", key="7-lost")
    assert [(event.site, event.node) for event in store.list_events(9)] == [
        ("shop", "cam1"),
        ("home", "cam2"),
        ("home", "cam1"),
    ]
    other.close()


def test_changes_have_revisions_that_grow(store: Store) -> None:
    change = Change(1.0, "home", "ada", {"local": 0.3}, {"local": 0.5}, 0, "applied")
    assert store.add_change(change).revision == 1
    assert store.add_change(msgspec.structs.replace(change, revision=40)).revision == 40
    assert store.add_change(msgspec.structs.replace(change, revision=7)).revision == 41
    assert store.add_change(msgspec.structs.replace(change, site="shop")).revision == 1
    newest = store.list_changes("home", 2)
    assert newest[1] == msgspec.structs.replace(change, revision=40)
    assert [change.revision for change in newest] == [41, 40]


def test_settings_are_kept(store: Store) -> None:
    store.write_setting("password", "first")
    store.write_setting("password", "second")
    assert (store.read_setting("password"), store.read_setting("other")) == ("second", None)


def test_recorded_samples_can_be_answered_anew(store: Store) -> None:
    exit_trace = [("local", 0, 0.8), ("edge", 1, 0.2)]
    store.save([("home", make(i, exit="edge", exit_trace=exit_trace)) for i in range(4)])
    store.save([("home", make(9, bundle="b0")), ("shop", make(1))])
    store.set_label("home", 3, 0, "ada", 1.0)
    replays = store.list_replays(4, "home", "b1")  # the newest four; one is of another bundle
    assert [replay.sample for replay in replays] == [3, 2, 1]
    assert replays[0] == Replay(3, "edge", 1, 0, exit_trace, 2, 80)
    assert replays[1].truth == 1


# ---------------------------------------------------------------- retention


def test_what_is_old_goes_and_what_it_amounted_to_stays(url: str) -> None:
    now_s = 0.0
    store = Store(url, clock=lambda: now_s)
    for day in range(4):
        now_s = day * 86400.0
        # Their own clocks are wrong: what counts is when they were stored.
        answers = [make(10 * day + i, answered_at_s=3e9 * (i - 1)) for i in range(10)]
        store.save([("home", answer) for answer in answers])
        store.add_event(now_s, "home", "cam1", f"day {day}")
    store.add_event(0.0, "home", "cam2", "died", key="1")
    before = store.summarize(), store.count_samples(), store.read_series(0, 600, 60)
    assert store.prune(now_s, 1.5 * 86400, at_most=7) == 7 + 2
    assert store.prune(now_s, 1.5 * 86400, at_most=7) == 7
    assert store.prune(now_s, 1.5 * 86400) == 6
    assert store.prune(now_s, 1.5 * 86400) == 0
    assert [record.answer.sample for record in store.list_newest(99)] == [*range(39, 19, -1)]
    after = store.summarize()
    assert (after.answered, after.accuracy) == (40, before[0].accuracy)
    assert (store.count_samples(), store.read_series(0, 600, 60)) == before[1:]
    # The newest event of a node stays: with it its key, which a retained status may say again.
    assert [event.what for event in store.list_events(9)] == ["died", "day 3", "day 2"]
    store.add_event(9e9, "home", "cam2", "died", key="1")
    assert len(store.list_events(9)) == 3
    store.close()
