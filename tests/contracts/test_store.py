"""The store, the same on SQLite and on PostgreSQL.

One row per sample, the best answer, whatever the order; every sum equals a recount.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, event, func, insert, literal, select, text

from cloud_app.store import (
    LATENCY_BOUNDS_S,
    LATENCY_WINDOW,
    Bucket,
    Change,
    NodeEvent,
    NotFound,
    Record,
    Replay,
    Store,
    Summary,
)
from cloud_app.store.migrations import HEAD, RELEASED
from cloud_app.store.schema import ANSWERS, EVENTS, METADATA, ROLLUPS
from cloud_app.store.statistics import wilson_interval
from ddnn.errors import ConfigError, LinkError
from ddnn.exits.answers import better
from ddnn.exits.hierarchy import EXITS
from ddnn.protocol.messages import Answer
from tests.answers_made import make_answer as make
from tests.postgres import Postgres

CAMS = ["cam1", "cam2", "cam3"]
SITES = ["home", "shop"]
BACKENDS = ["sqlite", "postgresql"]
IN_TIME_S = 60.0
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/cloud.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


@pytest.fixture(params=BACKENDS, scope="module")
def reused(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Store]:
    """A store that is emptied by its user: a database per example would take too long."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('reused')}/cloud.db"
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.database()
    store = Store(url)
    yield store
    store.close()


def clear(store: Store) -> None:
    with store.database.write() as link:
        for table in METADATA.tables.values():
            link.execute(table.delete())


# ------------------------------------------------------------ the plain way


def rows(store: Store) -> dict[tuple[str, int], Record]:
    records = store.newest(10**6)
    found = {(record.site, record.answer.sample): record for record in records}
    assert len(found) == len(records)
    return found


def mean(values: list[Any]) -> float | None:
    return sum(values) / len(values) if values else None


def recount(records: list[Record]) -> dict[str, Any]:
    """The summary by the plainest way there is."""
    answers = [record.answer for record in records]
    right = [
        (record.answer.exit, record.answer.label == record.truth)
        for record in records
        if record.truth is not None and record.truth >= 0
    ]
    devices = sum(len(a.members) for a in answers)

    def accuracy(right: list[bool]) -> dict[str, Any]:
        known = len(right)
        interval = wilson_interval(sum(right), known) if right else None
        return {"known": known, "accuracy": mean(right), "interval": interval}

    def of_exit(name: str) -> dict[str, Any]:
        times = [a.latency_s for a in answers if a.exit == name]
        return {
            "answered": len(times),
            "share": len(times) / len(answers) if answers else 0.0,
            "p50": np.percentile(times, 50) if times else None,
            "p99": np.percentile(times, 99) if times else None,
            **accuracy([is_right for exit_, is_right in right if exit_ == name]),
        }

    return {
        "answered": len(answers),
        "labelled": sum(record.labelled is not None for record in records),
        "expected": mean([a.expected_accuracy for a in answers if a.expected_accuracy is not None]),
        "late": sum(a.late for a in answers),
        "quality": {q: Counter(a.quality for a in answers)[q] for q in ("full", "degraded")},
        "payload": sum(a.payload_bytes for a in answers) / devices if devices else None,
        "wire": sum(a.wire_bytes for a in answers) / devices if devices else None,
        **accuracy([is_right for _, is_right in right]),
        **{name: of_exit(name) for name in EXITS},
    }


def flat(summary: Summary) -> dict[str, Any]:
    return {
        "answered": summary.answered,
        "labelled": summary.labelled,
        "known": summary.known,
        "accuracy": summary.accuracy,
        "interval": summary.accuracy_interval,
        "expected": summary.expected_accuracy,
        "late": summary.late,
        "quality": summary.quality,
        "payload": summary.payload_bytes,
        "wire": summary.wire_bytes,
        **{
            name: {
                "answered": of.answered,
                "share": of.share,
                "known": of.known,
                "accuracy": of.accuracy,
                "interval": of.accuracy_interval,
                "p50": of.latency_p50_s,
                "p99": of.latency_p99_s,
            }
            for name, of in summary.exits.items()
        },
    }


def recount_series(records: list[Record], step_s: int) -> dict[int, dict[str, Any]]:
    """The series by the plainest way there is; None of the steps without an answer."""
    steps = defaultdict(list)
    for record in records:
        steps[int(record.first_answered_at_s // step_s) * step_s].append(record)
    counts = {}
    for start_s, own in steps.items():
        whole = recount(own)
        answers = [record.answer for record in own]
        counts[start_s] = {
            "exits": dict(Counter(a.exit for a in answers)),
            "degraded": whole["quality"]["degraded"],
            "late": whole["late"],
            "known": whole["known"],
            "correct": round((whole["accuracy"] or 0) * whole["known"]),
            "expected": sum(a.expected_accuracy is not None for a in answers),
            "expected_accuracy": whole["expected"],
            "members": sum(len(a.members) for a in answers),
            "payload_bytes": sum(a.payload_bytes for a in answers),
            "wire_bytes": sum(a.wire_bytes for a in answers),
        }
    return counts


def flat_series(buckets: list[Bucket]) -> dict[int, dict[str, Any]]:
    flattened = {}
    for bucket in buckets:
        fields = msgspec.structs.asdict(bucket)
        assert fields.pop("p50_s").keys() == fields.pop("p99_s").keys() == bucket.exits.keys()
        if fields["exits"]:
            flattened[fields.pop("start_s")] = fields
    return flattened


def assert_same(got: Any, expected: Any, where: str = "") -> None:
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_same(got[name], value, f"{where}.{name}")
    elif expected is None:
        assert got is None, where
    else:
        assert got == pytest.approx(expected, rel=1e-9), where


# ----------------------------------------------------------------- contract


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
    assert store.newest(9) == [Record("home", answer, answer.answered_at_s)]
    assert store.answers("home", 0, 2**53, 9) == store.newest(9)


def test_the_better_answer_replaces_and_the_first_time_stays(store: Store) -> None:
    store.save([("home", make(exit="device", answered_at_s=3.0)), ("home", make(2))])
    store.save([("home", make(exit="cloud", answered_at_s=5.0))])
    store.save([("home", make(exit="edge", answered_at_s=4.0))])
    newest = store.newest(9)
    assert [record.answer.sample for record in newest] == [2, 1]  # by first arrival
    assert newest[1] == Record("home", make(exit="cloud", answered_at_s=5.0), 3.0)


def test_a_worse_answer_that_was_earlier_moves_the_first_time(store: Store) -> None:
    store.save([("home", make(exit="cloud", answered_at_s=500.0))])
    store.save([("home", make(exit="device", answered_at_s=3.0))])
    assert store.newest(1) == [Record("home", make(exit="cloud", answered_at_s=500.0), 3.0)]
    series = store.series(0, 600, 60)
    assert [sum(bucket.exits.values()) for bucket in series] == [1, *[0] * 10]


def test_sites_are_apart(store: Store) -> None:
    assert store.sites() == []
    store.save([("shop", make(exit="cloud")), ("home", make())])
    assert store.summary().answered == 2
    assert store.summary("shop").exits["cloud"].answered == 1
    assert store.summary("elsewhere").answered == 0
    assert [record.site for record in store.newest(9, "home")] == ["home"]
    assert store.totals("home") == {("local", "full"): 1}
    assert store.histogram("shop").keys() == {"cloud"}
    assert store.sites() == ["home", "shop"]


def test_nothing_yet(store: Store) -> None:
    store.save([])
    summary = store.summary()
    assert (summary.answered, summary.accuracy, summary.payload_bytes) == (0, None, None)
    assert summary.accuracy_interval is None
    assert summary.exits.keys() == set(EXITS)
    assert store.newest(20) == store.events(20) == store.changes("home", 9) == []
    assert store.recorded(9, "home", "b1") == store.answers("home", 0, 9, 9) == []
    assert store.histogram() == store.totals() == {}
    assert store.setting("password") is None
    assert store.prune(1e10, 0.0) == 0
    (bucket,) = store.series(60, 60, 60)
    assert (bucket.exits, bucket.expected_accuracy, bucket.p50_s) == ({}, None, {})


def test_the_newest_are_the_last_of_a_batch(store: Store) -> None:
    said = [("shop", 7), ("home", 9), ("shop", 3), ("home", 1)]
    store.save([(site, make(sample)) for site, sample in said])
    newest = [(record.site, record.answer.sample) for record in store.newest(9)]
    assert newest == said[::-1]


def test_all_is_there_after_a_restart(url: str) -> None:
    first = Store(url)
    first.save([("home", make())])
    before = first.summary()
    first.close()
    second = Store(url)
    second.save([("home", make())])  # delivered again
    assert second.summary() == before
    second.close()


def test_more_samples_than_one_query_takes(store: Store) -> None:
    for exit_ in ("local", "edge"):
        store.save([("home", make(i, exit=exit_)) for i in range(1200)])
    assert store.summary().exits["edge"].answered == store.summary().answered == 1200


def test_one_absurd_value_does_not_spoil_the_sums(store: Store) -> None:
    absurd = {
        **{"expected_accuracy": 1e308, "payload_bytes": 2**53, "wire_bytes": 2**53},
        **{"latency_s": 1e12},
    }
    store.save([("home", make(i, **absurd)) for i in range(3000)])
    assert store.histogram()["local"].sum_s <= 3000 * 3600
    store.save([("home", make(i, exit="edge")) for i in range(3000)])
    summary = store.summary()
    assert summary.expected_accuracy == pytest.approx(0.9)
    assert (summary.payload_bytes, summary.wire_bytes) == (40.0, 150.0)
    assert store.summary(last=3000).payload_bytes == 40.0


def test_an_answer_that_does_not_fit_leaves_nothing_of_its_batch(store: Store) -> None:
    for bad in (make(2, bundle="b" * 17), make(2, label=2**40), make(2**70)):
        if store.database.engine.dialect.name == "sqlite" and bad.sample == 2:
            continue  # it bounds neither
        with pytest.raises((LinkError, OverflowError)):
            store.save([("home", make(1)), ("home", bad)])
    assert (store.newest(9), store.totals(), store.summary().answered) == ([], {}, 0)


def test_a_failure_half_way_leaves_nothing(store: Store) -> None:
    with store.database.write() as link:
        link.execute(text("ALTER TABLE totals RENAME TO away"))
    with pytest.raises(LinkError, match="totals"):
        store.save([("home", make())])
    assert store.newest(9) == []
    with store.database.write() as link:
        link.execute(text("ALTER TABLE away RENAME TO totals"))
    store.save([("home", make())])
    assert store.summary().answered == 1


# ------------------------------------------------- order, labels, every sum


@st.composite
def tagged(draw: st.DrawFn) -> tuple[str, Answer]:
    members = draw(st.integers(0, 3))
    answer = make(
        draw(st.integers(1, 4)),
        node=draw(st.sampled_from(["edge", "cam1"])),
        exit=draw(st.sampled_from(EXITS)),
        label=draw(st.integers(-1, 1)),
        truth=draw(st.sampled_from([None, -1, 0, 1])),
        members=CAMS[:members],
        missing=CAMS[members:],
        quality="full" if members == 3 else "degraded",
        late=draw(st.booleans()),
        expected_accuracy=draw(st.sampled_from([None, 0.5, 0.97])),
        answered_at_s=draw(st.floats(0, 8000)),
        latency_s=draw(st.floats(-1, 40)),
        payload_bytes=draw(st.integers(0, 10**9)),
        wire_bytes=draw(st.integers(0, 10**9)),
    )
    return draw(st.sampled_from(SITES)), answer


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_order_any_batches_any_repeats_end_the_same(reused: Store, data: st.DataObject) -> None:
    """With labels by persons between them: the last one holds, whatever answer comes after it."""
    store = reused
    clear(store)
    said = data.draw(st.lists(tagged(), min_size=1, max_size=12))
    best: dict[tuple[str, int], Answer] = {}
    first: dict[tuple[str, int], float] = {}
    for site, answer in said:
        key = (site, answer.sample)
        best[key] = better(best.get(key, answer), answer)
        first[key] = min(first.get(key, answer.answered_at_s), answer.answered_at_s)
    repeated = said + data.draw(st.lists(st.sampled_from(said), max_size=6))
    order = data.draw(st.permutations(repeated))
    size = data.draw(st.integers(1, 5))
    labels: dict[tuple[str, int], int | None] = {}
    counted: dict[tuple[str, str], int] = {}
    for start in range(0, len(order), size):
        some = order[start : start + size]
        store.save(some)
        if data.draw(st.booleans()):
            site, answer = data.draw(st.sampled_from(some))
            label = data.draw(st.sampled_from([None, -1, 0, 1]))
            labels[site, answer.sample] = label
            assert store.label(site, answer.sample, label, "ada", 5.0).labelled == label
        counters = store.totals()
        assert all(counters.get(key, 0) >= count for key, count in counted.items())
        counted = counters
    expected = {
        key: Record(key[0], answer, first[key], labels.get(key)) for key, answer in best.items()
    }
    assert rows(store) == expected
    everything = store.newest(10**6)
    assert_same(flat(store.summary()), recount(everything))
    assert_same(flat(store.summary(last=2)), recount(everything[:2]))
    assert sum(counted.values()) == len(expected)
    assert sum(of.samples for of in store.histogram().values()) == len(expected)
    for step_s in (60, 120, 3600):
        for site in (None, *SITES):
            own = [record for record in everything if site in (None, record.site)]
            assert_same(
                flat_series(store.series(0, 8000, step_s, site)), recount_series(own, step_s)
            )
    for site in SITES:
        own = [record for record in everything if record.site == site]
        assert_same(flat(store.summary(site)), recount(own))
        assert_same(flat(store.summary(site, last=2)), recount(own[:2]))


# ------------------------------------------------------------------- series


def test_a_series_has_every_step_and_its_ends(store: Store) -> None:
    store.save([("home", make(i, answered_at_s=600.0 + 30 * i)) for i in range(8)])
    series = store.series(610, 800, 60)
    assert [bucket.start_s for bucket in series] == [600, 660, 720, 780]
    assert [bucket.exits.get("local", 0) for bucket in series] == [2, 2, 2, 2]
    assert [bucket.start_s for bucket in store.series(610, 800, 61)] == [600, 720]  # whole minutes
    assert store.series(610, 800, 0.5) == series
    with pytest.raises(ValueError, match="longer"):
        store.series(0, 1e12, 60)


def test_hours_say_what_their_minutes_say(store: Store) -> None:
    store.save([("home", make(i, answered_at_s=97.0 * i, label=i % 2)) for i in range(300)])
    minutes, hours = (store.series(0, 8 * 3600 - 1, step_s) for step_s in (60, 3600))
    for hour in hours:
        own = [m for m in minutes if hour.start_s <= m.start_s < hour.start_s + 3600]
        assert hour.correct == sum(minute.correct for minute in own) > 0
        assert hour.exits["local"] == sum(minute.exits.get("local", 0) for minute in own)


def test_percentiles_of_a_series_are_right_to_their_bucket(store: Store) -> None:
    generator = np.random.default_rng(5)
    latencies = generator.lognormal(-2.5, 0.8, 2000)
    store.save([("home", make(i, latency_s=t)) for i, t in enumerate(latencies.tolist())])
    (bucket,) = store.series(0, 0, 60)
    for q, got in ((50, bucket.p50_s["local"]), (99, bucket.p99_s["local"])):
        true = float(np.percentile(latencies, q))
        place = int(np.searchsorted(LATENCY_BOUNDS_S, true))
        assert LATENCY_BOUNDS_S[place - 1] <= got <= LATENCY_BOUNDS_S[place]
        assert got == pytest.approx(true, rel=0.15)
    histogram = store.histogram()["local"]
    edges = [-np.inf, *LATENCY_BOUNDS_S, np.inf]
    assert histogram.buckets == tuple(np.histogram(latencies, edges)[0])
    assert (histogram.samples, histogram.sum_s) == (2000, pytest.approx(latencies.sum()))


def test_counters_never_fall(store: Store) -> None:
    """A better answer moves its sample in the summary; a counter that fell would look like a
    program that was started again, and like all that it had counted coming in once more."""
    store.save([("home", make(i, exit="device", latency_s=0.1)) for i in range(5)])
    store.save([("home", make(i, exit="cloud", latency_s=0.2)) for i in range(2)])
    assert store.summary().exits["cloud"].answered == 2
    assert store.totals() == {("device", "full"): 5}
    before = store.histogram()
    assert (before["device"].samples, before.keys()) == (5, {"device"})
    assert store.prune(1e10, 0.0) == 5
    assert store.histogram() == before


# ------------------------------------------------------------------- labels


def test_a_person_says_what_it_is(store: Store) -> None:
    store.save([("home", make(i, label=1, truth=[1, None, 2][i])) for i in range(3)])
    assert (store.summary().accuracy, store.summary().known) == (0.5, 2)
    record = store.label("home", 1, 1, "ada", 20.0)
    assert record == store.answers("home", 1, 1, 1)[0]
    assert (record.labelled, record.truth, record.answer.truth) == (1, 1, None)
    summary = store.summary()
    assert (summary.accuracy, summary.known, summary.labelled) == (pytest.approx(2 / 3), 3, 1)
    assert summary.accuracy_interval == wilson_interval(2, 3)
    store.label("home", 2, 1, "ada", 20.0)  # a person's word counts before the source's
    assert (store.summary().accuracy, store.summary().labelled) == (1.0, 2)
    store.label("home", 2, None, "ada", 21.0)
    assert store.summary() == summary
    with pytest.raises(NotFound, match="99"):
        store.label("home", 99, 1, "ada", 20.0)
    with pytest.raises(NotFound):
        store.label("shop", 1, 1, "ada", 20.0)


# ---------------------------------------------------- events, audit, settings


def test_events_newest_first(store: Store) -> None:
    store.add_event(1.0, "home", "cam1", "joined")
    store.add_event(2.0, "home", "cam1", "lost")
    store.add_event(3.0, "home", "cam1", "joined")
    assert store.events(2) == [
        NodeEvent(3.0, "home", "cam1", "joined"),
        NodeEvent(2.0, "home", "cam1", "lost"),
    ]


def test_an_event_that_several_saw_is_stored_once(store: Store, url: str) -> None:
    other = Store(url)
    for seen_by in (store, other, store):
        seen_by.add_event(1.0, "home", "cam1", "died", key="7-lost")
    other.add_event(2.0, "home", "cam2", "died", key="7-lost")
    other.add_event(3.0, "shop", "cam1", "died", key="7-lost")
    assert [(event.site, event.node) for event in store.events(9)] == [
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
    newest = store.changes("home", 2)
    assert newest[1] == msgspec.structs.replace(change, revision=40)
    assert [change.revision for change in newest] == [41, 40]


def test_settings_are_kept(store: Store) -> None:
    store.set_setting("password", "first")
    store.set_setting("password", "second")
    assert (store.setting("password"), store.setting("other")) == ("second", None)


def test_recorded_samples_can_be_answered_anew(store: Store) -> None:
    exit_trace = [("local", 0, 0.8), ("edge", 1, 0.2)]
    store.save([("home", make(i, exit="edge", exit_trace=exit_trace)) for i in range(4)])
    store.save([("home", make(9, bundle="b0")), ("shop", make(1))])
    store.label("home", 3, 0, "ada", 1.0)
    replays = store.recorded(4, "home", "b1")  # the newest four; one is of another bundle
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
    before = store.summary(), store.totals(), store.series(0, 600, 60)
    assert store.prune(now_s, 1.5 * 86400, at_most=7) == 7 + 2
    assert store.prune(now_s, 1.5 * 86400, at_most=7) == 7
    assert store.prune(now_s, 1.5 * 86400) == 6
    assert store.prune(now_s, 1.5 * 86400) == 0
    assert [record.answer.sample for record in store.newest(99)] == [*range(39, 19, -1)]
    after = store.summary()
    assert (after.answered, after.accuracy) == (40, before[0].accuracy)
    assert (store.totals(), store.series(0, 600, 60)) == before[1:]
    # The newest event of a node stays: with it its key, which a retained status may say again.
    assert [event.what for event in store.events(9)] == ["died", "day 3", "day 2"]
    store.add_event(9e9, "home", "cam2", "died", key="1")
    assert len(store.events(9)) == 3
    store.close()


# ------------------------------------------------------- threads, processes


def together(*jobs: Callable[[], object]) -> list[Exception]:
    """Run the jobs at once; what they raised."""
    failed: list[Exception] = []

    def run(job: Callable[[], object]) -> None:
        try:
            job()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(IN_TIME_S)
    assert not any(thread.is_alive() for thread in threads)
    return failed


def test_readers_beside_a_writer_see_whole_batches_only(store: Store) -> None:
    done = threading.Event()
    wrong: list[object] = []

    def write() -> None:
        try:
            for start in range(0, 600, 20):
                store.save([("home", make(i)) for i in range(start, start + 20)])
                store.add_event(float(start), "home", "cam1", "joined")
        finally:
            done.set()

    def read() -> None:
        while not done.is_set():
            answered = store.summary().answered
            if answered % 20 or len(store.newest(20)) not in (0, 20):
                wrong.append(answered)

    assert together(write, read, read, read) == []
    assert wrong == []
    assert store.summary().answered == 600


def test_several_clouds_write_the_same_samples(url: str) -> None:
    """Each device answers for itself and each answer comes by another cloud, in another order."""
    stores = [Store(url) for _ in range(4)]

    def writer(i: int) -> Callable[[], None]:
        def write() -> None:
            order = [(j + 25 * i) % 100 for j in range(100)]
            for start in range(0, 100, 10):
                some = order[start : start + 10]
                stores[i].save([("home", make(j, node=f"cam{i}", eta=0.1 * i)) for j in some])

        return write

    def label() -> None:
        for j in range(100):
            while True:
                try:
                    stores[0].label("home", j, 0, "ada", 1.0)
                except NotFound:
                    continue
                break

    failed = together(*(writer(i) for i in range(4)), label)
    assert failed == []
    records = stores[0].newest(999)
    assert len(records) == 100
    assert {(record.answer.node, record.labelled) for record in records} == {("cam0", 0)}
    assert_same(flat(stores[0].summary()), recount(records))
    assert sum(stores[0].totals().values()) == 100
    for store in stores:
        store.close()


def test_changes_at_once_get_different_revisions(url: str) -> None:
    stores = [Store(url), Store(url)]
    change = Change(1.0, "home", "ada", {}, {}, 0, "applied")
    failed = together(*(lambda s=s: [s.add_change(change) for _ in range(20)] for s in stores))
    assert failed == []
    assert [c.revision for c in stores[0].changes("home", 99)] == [*range(40, 0, -1)]
    for store in stores:
        store.close()


def test_processes_that_start_at_once_make_the_tables_once(url: str) -> None:
    program = "import sys; from cloud_app.store import Store; Store(sys.argv[1]).close()"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE, cwd=ROOT)
        for _ in range(6)
    ]
    errors = [process.communicate(timeout=IN_TIME_S)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, errors
    store = Store(url)
    store.save([("home", make())])
    store.close()


# --------------------------------------------------------------- migrations

_RELEASED_SQL = Path(__file__).with_name("released.sql").read_text()


def released(url: str) -> None:
    """A database as the released store made it, with what it wrote: answers, totals, events."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as link:
            link.executescript(_RELEASED_SQL)
        link.close()
        return
    store = Store(url)
    store.database.migrate(RELEASED)
    with sqlite3.connect(":memory:") as source:
        source.executescript(_RELEASED_SQL)
        source.row_factory = sqlite3.Row
        with store.database.write() as link:
            link.execute(text("DROP TABLE alembic_version"))
            for name in ("answers", "totals", "events"):
                for row in map(dict, source.execute(f"SELECT * FROM {name}")):  # noqa: S608
                    if name == "answers":
                        row["late"] = bool(row["late"])
                    names = ", ".join(row)
                    values = ", ".join(f":{column}" for column in row)
                    query = f"INSERT INTO {name} ({names}) VALUES ({values})"  # noqa: S608
                    link.execute(text(query), row)
            for name in ("answers", "events"):
                greatest = f"(SELECT max(id) FROM {name})"  # noqa: S608
                sequence = f"pg_get_serial_sequence('{name}', 'id')"
                link.execute(text(f"SELECT setval({sequence}, {greatest})"))
    source.close()
    store.close()


def content(url: str, *tables: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of tables, as the database has them."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as link:
        found = {}
        for table in tables:
            query = text(f"SELECT * FROM {table}")  # noqa: S608
            found[table] = sorted((dict(row) for row in link.execute(query).mappings()), key=str)
    engine.dispose()
    return found


def revisions(url: str) -> list[str]:
    return [row["version_num"] for row in content(url, "alembic_version")["alembic_version"]]


def test_the_tables_are_those_of_the_schema(store: Store) -> None:
    with store.database.read() as link:
        context = MigrationContext.configure(link, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_a_released_database_is_taken_over_whole(url: str, tmp_path: Path) -> None:
    released(url)
    before = content(url, "answers", "totals", "events")
    store = Store(url)
    assert revisions(url) == [HEAD]
    after = content(url, "answers", "totals", "events")
    for table, old_rows in before.items():
        assert len(after[table]) == len(old_rows) > 0
        assert [{name: row[name] for name in old_rows[0]} for row in after[table]] == old_rows
    # What is counted anew is what a store that had seen these answers would have counted.
    anew = Store(f"sqlite:///{tmp_path}/anew.db")
    anew.save([(record.site, record.answer) for record in reversed(store.newest(999))])
    assert store.newest(999) == anew.newest(999)
    assert flat(store.summary()) == flat(anew.summary())
    assert store.totals() == anew.totals()
    assert store.histogram() == anew.histogram()
    first_s, last_s = 1_700_000_000, 1_700_002_000
    for step_s in (60, 3600):
        for shift_s in (0, -3_400_000_000):  # some were answered by a clock before 1970
            times = first_s + shift_s, last_s + shift_s
            series = store.series(*times, step_s)
            assert series == anew.series(*times, step_s)
            assert any(bucket.exits for bucket in series)
    anew.close()
    # And it goes on.
    store.save([("home", make(1000))])
    store.label("home", 1, 1, "ada", 1.0)
    assert store.newest(1)[0].answer.sample == 1000
    assert store.prune(0.0, 0.0) == 0
    store.close()


def test_down_and_up_again_keeps_the_answers(url: str) -> None:
    store = Store(url)
    store.save([("home", make(i, label=i % 3, truth=[None, 1, 2][i // 4])) for i in range(12)])
    store.save([("shop", make(i, exit="edge")) for i in range(3)])
    store.add_event(1.0, "home", "cam1", "joined", key="1")
    summary, series = store.summary(), store.series(0, 60, 60)
    counters = store.histogram()
    for sample, label in ((0, 0), (1, 0), (5, 2), (9, -1)):
        store.label("home", sample, label, "ada", 1.0)
    assert store.summary().accuracy != summary.accuracy
    store.database.migrate(RELEASED)
    assert revisions(url) == [RELEASED]
    down = content(url, "answers", "totals", "events")
    assert not {"votes", "labelled", "stored_at_s"} & down["answers"][0].keys()
    by_source = defaultdict(lambda: [0, 0])
    for row in down["answers"]:
        assert row["correct"] == (None if row["truth"] is None else row["truth"] == row["label"])
        by_source[row["site"], row["exit"], row["quality"]][0] += row["correct"] is not None
        by_source[row["site"], row["exit"], row["quality"]][1] += row["correct"] or 0
    assert by_source == {
        (row["site"], row["exit"], row["quality"]): [row["known"], row["correct"]]
        for row in down["totals"]
    }
    store.database.migrate()
    assert (store.summary(), store.series(0, 60, 60)) == (summary, series)
    assert store.histogram() == counters
    assert [event.what for event in store.events(9)] == ["joined"]
    store.close()


def test_down_to_nothing_and_up(url: str) -> None:
    store = Store(url)
    store.database.migrate("base")
    store.database.migrate("base")
    store.database.migrate()
    store.save([("home", make())])
    assert store.summary().answered == 1
    store.close()


def test_a_database_of_a_newer_program_is_refused(url: str) -> None:
    store = Store(url)
    with store.database.write() as link:
        link.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(ConfigError, match=r"9999.*newer ddnn.*another database"):
        Store(url)
    assert revisions(url) == ["9999"]


def test_a_migration_that_fails_changes_nothing(url: str) -> None:
    released(url)
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as link:
        link.execute(text("CREATE TABLE settings (occupied INTEGER)"))  # made last
    before = content(url, "answers", "totals", "events")
    with pytest.raises(LinkError, match="settings"):
        Store(url)
    assert content(url, "answers", "totals", "events") == before
    with engine.begin() as link:
        link.execute(text("DROP TABLE settings"))
    engine.dispose()
    Store(url).close()
    assert revisions(url) == [HEAD]


# ----------------------------------------------------------------- the work


def multiply(store: Store, doublings: int) -> None:
    """Double answers, series and events in the database, later by as much as they reach."""
    moved = {
        ANSWERS: ("sample",),
        ROLLUPS: ("start_s",),
        EVENTS: ("at_s",),
    }
    with store.database.write() as link:
        if link.dialect.name == "postgresql":
            link.execute(text("SET LOCAL statement_timeout = 0"))
        for _ in range(doublings):
            for table, columns in moved.items():
                shift = {
                    name: link.execute(
                        select(func.max(table.c[name]) - func.min(table.c[name]) + 60)
                    ).scalar()
                    for name in columns
                }
                picked = [column for column in table.columns if column.name != "id"]
                values = [
                    column + literal(shift[column.name], column.type)
                    if column.name in shift
                    else column
                    for column in picked
                ]
                # Levels of a roll-up keep their grid: a multiple of the longest step.
                if table is ROLLUPS:
                    hours = -(-int(shift["start_s"]) // 3600) * 3600
                    values[picked.index(ROLLUPS.c.start_s)] = ROLLUPS.c.start_s + hours
                link.execute(insert(table).from_select([c.name for c in picked], select(*values)))


@pytest.fixture(params=BACKENDS, scope="module")
def big(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Store]:
    """512,000 answers of five sites, their roll-ups of three weeks, 128,000 events."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('big')}/cloud.db"
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        url = server.database()
    store = Store(url, clock=lambda: 0.0)
    some = [
        make(i, exit=EXITS[i % 4], answered_at_s=60.0 * (i // 4), exit_trace=[("local", 1, 0.5)])
        for i in range(1000)
    ]
    store.save([(site, answer) for answer in some for site in ("home", "shop")])
    with store.database.write() as link:
        link.execute(
            insert(EVENTS),
            [{"at_s": 1.0 * i, "site": "home", "node": "cam1", "what": "x"} for i in range(1000)],
        )
    multiply(store, 7)
    # A site that has fallen silent: all that came after it is of another.
    columns = [column for column in ANSWERS.c if column.key not in ("id", "site")]
    with store.database.write() as link:
        for site, of in (("silent", "home"), ("loud", "shop")):
            copied = select(literal(site), *columns).where(ANSWERS.c.site == of)
            link.execute(insert(ANSWERS).from_select(["site", *(c.key for c in columns)], copied))
    store.save([("rare", make())])
    with store.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as link:
        link.exec_driver_sql("ANALYZE")
    yield store
    store.close()


_END_S = 60.0 * 250 * 128
READS: dict[str, Callable[[Store], object]] = {
    "summary": lambda store: store.summary(),
    "summary of a site": lambda store: store.summary("home"),
    "summary of a rare site": lambda store: store.summary("rare"),
    "summary of the last": lambda store: store.summary("home", last=500),
    "sites": lambda store: store.sites(),
    "newest": lambda store: store.newest(20),
    "newest of a site": lambda store: store.newest(20, "home"),
    "newest of a rare site": lambda store: store.newest(20, "rare"),
    "newest of a silent site": lambda store: store.newest(20, "silent"),
    "summary of a silent site": lambda store: store.summary("silent"),
    "newest of no site": lambda store: store.newest(20, "nowhere"),
    "answers": lambda store: store.answers("home", 60_000, 2**53, 1000),
    "recorded": lambda store: store.recorded(2000, "home", "b1"),
    "recorded of no bundle": lambda store: store.recorded(2000, "home", "b0"),
    "events": lambda store: store.events(20),
    "changes": lambda store: store.changes("home", 20),
    "setting": lambda store: store.setting("password"),
    "series": lambda store: store.series(_END_S - 3600, _END_S, 60),
    "series of a site": lambda store: store.series(_END_S - 3600, _END_S, 60, "home"),
    "series of weeks": lambda store: store.series(_END_S - 14 * 86400, _END_S, 7200),
    "histogram": lambda store: store.histogram(),
    "totals": lambda store: store.totals("home"),
    "save": lambda store: store.save([("home", make(2**40 + i)) for i in range(500)]),
    "save again": lambda store: store.save(
        [("home", make(2**40 + i, exit="cloud")) for i in range(500)]
    ),
    "label": lambda store: store.label("home", 5, 1, "ada", 1.0),
    "add_event": lambda store: store.add_event(1.0, "home", "cam1", "died", key="1"),
    "add_change": lambda store: store.add_change(Change(1.0, "home", "a", {}, {}, 0, "applied")),
    "prune nothing": lambda store: store.prune(0.0, 10.0, 100),
    "prune": lambda store: store.prune(5.0, 0.0, 100),
}
MOST_ROWS = LATENCY_WINDOW + 2_000  # that one statement may look at


@pytest.mark.parametrize("name", READS)
def test_no_statement_looks_at_all_rows(big: Store, name: str) -> None:
    """The database itself says what it does: its plan, and where it counts them its rows."""
    said: list[tuple[str, Any]] = []

    def explain(
        link: Any, cursor: Any, statement: str, values: Any, context: Any, many: bool
    ) -> None:
        verb = statement.lstrip().split()[0]
        if verb not in ("SELECT", "UPDATE", "DELETE", "INSERT") or "pg_advisory" in statement:
            return
        one = values[0] if many and not isinstance(values, tuple) else values
        said.append((statement, plan(link, statement, one)))

    event.listen(big.database.engine, "before_cursor_execute", explain)
    try:
        READS[name](big)
    finally:
        event.remove(big.database.engine, "before_cursor_execute", explain)
    assert said
    for statement, looked_at in said:
        assert looked_at <= MOST_ROWS, statement


def plan(link: Any, statement: str, values: Any) -> float:
    """How many rows a statement looks at, by EXPLAIN; infinite: all that there are."""
    if link.dialect.name == "sqlite":
        cursor = link.connection.driver_connection.cursor()
        steps = [step[3] for step in cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
        scanned = {step.split()[1] for step in steps if step.startswith("SCAN ")}
        sorted_ = any("TEMP B-TREE FOR ORDER BY" in step for step in steps)
        for table in scanned & {"answers", "rollups", "events"}:
            # In order of the row id, without a condition, up to a limit: no more than that.
            ended = "LIMIT" in statement and f"FROM {table} ORDER BY" in " ".join(statement.split())
            if sorted_ or not ended:
                return float("inf")
        return 0.0
    cursor = link.connection.driver_connection.cursor()
    cursor.execute("SAVEPOINT explained")
    cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
    ((found,),) = cursor.fetchall()
    cursor.execute("ROLLBACK TO SAVEPOINT explained")
    return max(_looked_at(found[0]["Plan"]))


def _looked_at(node: dict[str, Any]) -> Iterator[float]:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    yield (node["Actual Rows"] + removed) * node["Actual Loops"]
    for child in node.get("Plans", ()):
        yield from _looked_at(child)
