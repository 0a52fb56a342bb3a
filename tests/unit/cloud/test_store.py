"""One row per sample, the best answer, whatever the order; totals equal a recount."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from cloud_app.store import Record, Store, Summary
from ddnn.errors import ConfigError, LinkError
from ddnn.exits.answers import better
from ddnn.exits.hierarchy import EXITS
from ddnn.protocol.messages import Answer

Make = Callable[..., Answer]
CAMS = ["cam1", "cam2", "cam3"]


def tagged(draw: st.DrawFn, make: Make) -> tuple[str, Answer]:
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
        answered_at_s=draw(st.floats(0, 9)),
        latency_s=draw(st.floats(-1, 9)),
        payload_bytes=draw(st.integers(0, 10**9)),
        wire_bytes=draw(st.integers(0, 10**9)),
    )
    return draw(st.sampled_from(["home", "shop"])), answer


def rows(store: Store) -> dict[tuple[str, int], Record]:
    records = store.newest(10**6)
    found = {(record.site, record.answer.sample): record for record in records}
    assert len(found) == len(records)
    return found


def recount(records: list[Record]) -> dict[str, Any]:
    """The summary by the plainest way there is."""
    answers = [record.answer for record in records]
    known = [a for a in answers if a.truth is not None and a.truth >= 0]
    expected = [a.expected_accuracy for a in answers if a.expected_accuracy is not None]
    devices = sum(len(a.members) for a in answers)

    def mean(values: list[Any]) -> float | None:
        return sum(values) / len(values) if values else None

    def of_exit(name: str) -> dict[str, Any]:
        own = [a for a in answers if a.exit == name]
        times = [a.latency_s for a in own]
        return {
            "answered": len(own),
            "share": len(own) / len(answers) if answers else 0.0,
            "accuracy": mean([a.label == a.truth for a in own if a in known]),
            "p50": np.percentile(times, 50) if times else None,
            "p99": np.percentile(times, 99) if times else None,
        }

    return {
        "answered": len(answers),
        "known": len(known),
        "accuracy": mean([a.label == a.truth for a in known]),
        "expected": mean(expected),
        "late": sum(a.late for a in answers),
        "quality": {q: Counter(a.quality for a in answers)[q] for q in ("full", "degraded")},
        "payload": sum(a.payload_bytes for a in answers) / devices if devices else None,
        "wire": sum(a.wire_bytes for a in answers) / devices if devices else None,
        **{name: of_exit(name) for name in EXITS},
    }


def flat(summary: Summary) -> dict[str, Any]:
    return {
        "answered": summary.answered,
        "known": summary.known,
        "accuracy": summary.accuracy,
        "expected": summary.expected_accuracy,
        "late": summary.late,
        "quality": summary.quality,
        "payload": summary.payload_bytes,
        "wire": summary.wire_bytes,
        **{
            name: {
                "answered": of.answered,
                "share": of.share,
                "accuracy": of.accuracy,
                "p50": of.latency_p50_s,
                "p99": of.latency_p99_s,
            }
            for name, of in summary.exits.items()
        },
    }


def assert_same(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_same(got[name], value)
        elif value is None:
            assert got[name] is None, name
        else:
            assert got[name] == pytest.approx(value, rel=1e-9), name


# ----------------------------------------------------------------- contract


def test_an_answer_comes_back_whole(store: Store, make: Make) -> None:
    answer = make(2**53, missing=["cam9"], truth=None, expected_accuracy=None, eta=0.1 + 0.2)
    store.save([("home", answer)])
    assert store.newest(9) == [Record("home", answer, answer.answered_at_s)]


def test_the_better_answer_replaces_and_the_first_time_stays(store: Store, make: Make) -> None:
    store.save([("home", make(exit="device", answered_at_s=3.0)), ("home", make(2))])
    store.save([("home", make(exit="cloud", answered_at_s=5.0))])
    store.save([("home", make(exit="edge", answered_at_s=4.0))])
    newest = store.newest(9)
    assert [record.answer.sample for record in newest] == [2, 1]  # by first arrival
    assert newest[1] == Record("home", make(exit="cloud", answered_at_s=5.0), 3.0)


def test_a_worse_answer_that_was_earlier_moves_the_first_time(store: Store, make: Make) -> None:
    store.save([("home", make(exit="cloud", answered_at_s=5.0))])
    store.save([("home", make(exit="device", answered_at_s=3.0))])
    assert store.newest(1) == [Record("home", make(exit="cloud", answered_at_s=5.0), 3.0)]


def test_sites_are_apart(store: Store, make: Make) -> None:
    store.save([("home", make()), ("shop", make(exit="cloud"))])
    assert store.summary().answered == 2
    assert store.summary("shop").exits["cloud"].answered == 1
    assert store.summary("elsewhere").answered == 0
    assert [record.site for record in store.newest(9, "home")] == ["home"]


def test_nothing_yet(store: Store) -> None:
    store.save([])
    summary = store.summary()
    assert (summary.answered, summary.accuracy, summary.payload_bytes) == (0, None, None)
    assert summary.exits.keys() == set(EXITS)
    assert store.newest(20) == []
    assert store.events(20) == []


def test_events_newest_first(store: Store) -> None:
    store.add_event(1.0, "home", "cam1", "joined")
    store.add_event(2.0, "home", "cam1", "lost")
    store.add_event(3.0, "home", "cam1", "joined")
    assert [(event.at_s, event.what) for event in store.events(2)] == [
        (3.0, "joined"),
        (2.0, "lost"),
    ]


def test_all_is_there_after_a_restart(tmp_path: Path, make: Make) -> None:
    url = f"sqlite:///{tmp_path}/cloud.db"
    first = Store(url)
    first.save([("home", make())])
    before = first.summary()
    first.close()
    second = Store(url)
    second.save([("home", make())])  # delivered again
    assert second.summary() == before
    second.close()


def test_more_samples_than_one_query_takes(store: Store, make: Make) -> None:
    for exit_ in ("local", "edge"):
        store.save([("home", make(i, exit=exit_)) for i in range(1200)])
    assert store.summary().exits["edge"].answered == store.summary().answered == 1200


def test_one_absurd_value_does_not_spoil_the_totals(store: Store, make: Make) -> None:
    absurd = {"expected_accuracy": 1e308, "payload_bytes": 2**53, "wire_bytes": 2**53}
    store.save([("home", make(i, **absurd)) for i in range(3000)])
    store.save([("home", make(i, exit="edge")) for i in range(3000)])
    summary = store.summary()
    assert summary.expected_accuracy == pytest.approx(0.9)
    assert (summary.payload_bytes, summary.wire_bytes) == (40.0, 150.0)
    assert store.summary(last=3000).payload_bytes == 40.0


# ------------------------------------------------------------- order, totals


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_order_any_batches_any_repeats_end_the_same(make: Make, data: st.DataObject) -> None:
    one = st.composite(tagged)(make)
    said = data.draw(st.lists(one, min_size=1, max_size=12))
    best: dict[tuple[str, int], Answer] = {}
    first: dict[tuple[str, int], float] = {}
    for site, answer in said:
        key = (site, answer.sample)
        best[key] = better(best.get(key, answer), answer)
        first[key] = min(first.get(key, answer.answered_at_s), answer.answered_at_s)
    expected = {key: Record(key[0], answer, first[key]) for key, answer in best.items()}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/cloud.db")
        repeated = said + data.draw(st.lists(st.sampled_from(said), max_size=6))
        order = data.draw(st.permutations(repeated))
        size = data.draw(st.integers(1, 5))
        for start in range(0, len(order), size):
            store.save(order[start : start + size])
        assert rows(store) == expected
        everything = store.newest(10**6)
        assert_same(flat(store.summary()), recount(everything))
        assert_same(flat(store.summary(last=2)), recount(everything[:2]))
        for site in ("home", "shop"):
            own = [record for record in everything if record.site == site]
            assert_same(flat(store.summary(site)), recount(own))
            assert_same(flat(store.summary(site, last=2)), recount(own[:2]))
        store.close()


@pytest.mark.parametrize("site", [None, "home"])
def test_a_read_does_not_grow_with_the_table(store: Store, make: Make, site: str | None) -> None:
    """Each statement of a summary walks the row id or an index in order: nothing is sorted."""
    store.save([("home", make(i)) for i in range(50)])
    said: list[tuple[str, Any]] = []
    event.listen(
        store.database.engine,
        "before_cursor_execute",
        lambda *args: said.append((args[2], args[3])),
    )
    store.summary(site)
    store.newest(20, site)
    selects = [(query, values) for query, values in said if "FROM answers" in query]
    assert len(selects) == 2
    with store.database.read() as link:
        for query, values in selects:
            plan = link.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values).all()
            steps = [step[3] for step in plan]
            if site is None:
                assert steps == ["SCAN answers"]  # by row id, ended by the limit
            else:
                assert [step.split(" USING ")[1] for step in steps] == [
                    "INDEX answers_newest_of_site (site=?)"
                ]


# -------------------------------------------------------------------- faults


def test_a_locked_database_is_a_link_error_and_the_batch_may_come_again(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_app.store.database.BUSY_TIMEOUT_S", 0.05)
    store = Store(f"sqlite:///{tmp_path}/cloud.db")
    other = sqlite3.connect(tmp_path / "cloud.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    batch = [("home", make(i)) for i in range(3)]
    with pytest.raises(LinkError, match=r"locked.*try again"):
        store.save(batch)
    assert store.summary().answered == 0  # readers do not wait
    other.execute("ROLLBACK")
    other.close()
    store.save(batch)
    assert store.summary().answered == 3
    store.close()


def test_a_failure_half_way_leaves_nothing(store: Store, make: Make) -> None:
    with store.database.write() as link:
        link.execute(text("ALTER TABLE totals RENAME TO away"))
    with pytest.raises(LinkError, match="totals"):
        store.save([("home", make())])
    assert store.newest(9) == []
    with store.database.write() as link:
        link.execute(text("ALTER TABLE away RENAME TO totals"))
    store.save([("home", make())])
    assert store.summary().answered == 1


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "cloud.db").write_bytes(b"these are not the rows you look for" * 100)
    with pytest.raises(LinkError, match="not a database"):
        Store(f"sqlite:///{tmp_path}/cloud.db")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="folder"):
        Store(f"sqlite:///{tmp_path}/nowhere/cloud.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "nonsense", "nosuch://host/db"])
def test_a_wrong_url_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match=r"sqlite:///cloud\.db"):
        Store(url)


@pytest.mark.parametrize(
    "url", ["nosuch://me:hunter2@host/db", "sqlite://me:hunter2@/:memory:", "me:hunter2@host"]
)
def test_a_password_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Store(url)
    assert "hunter2" not in str(caught.value)


# ------------------------------------------------------------------- threads


def test_readers_beside_a_writer_see_whole_batches_only(store: Store, make: Make) -> None:
    done = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        try:
            while not done.is_set():
                answered = store.summary().answered
                if answered % 20 or len(store.newest(20)) not in (0, 20):
                    wrong.append(answered)
        except Exception as error:
            wrong.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, 600, 20):
        store.save([("home", make(i)) for i in range(start, start + 20)])
        store.add_event(float(start), "home", "cam1", "joined")
    done.set()
    for reader in readers:
        reader.join(30)
    assert wrong == []
    assert store.summary().answered == 600


def test_two_clouds_may_write_into_one_database(tmp_path: Path, make: Make) -> None:
    url = f"sqlite:///{tmp_path}/cloud.db"
    stores = [Store(url), Store(url)]
    failed: list[Exception] = []

    def write(store: Store, exit_: str) -> None:
        try:
            for start in range(0, 200, 10):
                store.save([("home", make(i, exit=exit_)) for i in range(start, start + 10)])
        except Exception as error:
            failed.append(error)

    writers = [
        threading.Thread(target=write, args=pair)
        for pair in zip(stores, ("edge", "cloud"), strict=True)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    summary = stores[0].summary()
    assert failed == []
    assert (summary.answered, summary.exits["cloud"].answered) == (200, 200)
    for store in stores:
        store.close()
