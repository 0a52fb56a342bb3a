"""No statement of the store looks at all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, event, func, insert, literal, select, text

from cloud_app.store import LATENCY_WINDOW, Change, Store
from cloud_app.store.schema import ANSWERS, EVENTS, ROLLUPS
from ddnn.exits.hierarchy import EXITS
from tests.answer_builder import make_answer as make
from tests.postgres import Postgres

BACKENDS = ["sqlite", "postgresql"]


@contextmanager
def write_without_limit(store: Store) -> Iterator[Connection]:
    """A transaction whose statements may take as long as they need on a busy machine."""
    with store.database.write() as link:
        if link.dialect.name == "postgresql":
            link.execute(text("SET LOCAL statement_timeout = 0"))
        yield link


def multiply(store: Store, doublings: int) -> None:
    """Double answers, series and events in the database, later by as much as they reach."""
    moved = {
        ANSWERS: ("sample",),
        ROLLUPS: ("start_s",),
        EVENTS: ("at_s",),
    }
    with write_without_limit(store) as link:
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
def big_store(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Store]:
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
    for first in range(0, len(some), 100):  # each statement within its time, however busy
        part = some[first : first + 100]
        store.save([(site, answer) for answer in part for site in ("home", "shop")])
    with store.database.write() as link:
        link.execute(
            insert(EVENTS),
            [{"at_s": 1.0 * i, "site": "home", "node": "cam1", "what": "x"} for i in range(1000)],
        )
    multiply(store, 7)
    # A site that has fallen silent: all that came after it is of another.
    columns = [column for column in ANSWERS.c if column.key not in ("id", "site")]
    with write_without_limit(store) as link:
        for site, of in (("silent", "home"), ("loud", "shop")):
            copied = select(literal(site), *columns).where(ANSWERS.c.site == of)
            link.execute(insert(ANSWERS).from_select(["site", *(c.key for c in columns)], copied))
    store.save([("rare", make())])
    with store.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as link:
        if link.dialect.name == "postgresql":
            link.exec_driver_sql("SET statement_timeout = 0")
        link.exec_driver_sql("ANALYZE")
        link.invalidate()  # the limit is of the connection, which the store would use again
    yield store
    store.close()


_END_S = 60.0 * 250 * 128
READS: dict[str, Callable[[Store], object]] = {
    "summary": lambda store: store.summarize(),
    "summary of a site": lambda store: store.summarize("home"),
    "summary of a rare site": lambda store: store.summarize("rare"),
    "summary of the last": lambda store: store.summarize("home", last=500),
    "sites": lambda store: store.list_sites(),
    "newest": lambda store: store.list_newest(20),
    "newest of a site": lambda store: store.list_newest(20, "home"),
    "newest of a rare site": lambda store: store.list_newest(20, "rare"),
    "newest of a silent site": lambda store: store.list_newest(20, "silent"),
    "summary of a silent site": lambda store: store.summarize("silent"),
    "newest of no site": lambda store: store.list_newest(20, "nowhere"),
    "answers": lambda store: store.list_answers("home", 60_000, 2**53, 1000),
    "recorded": lambda store: store.list_replays(2000, "home", "b1"),
    "recorded of no bundle": lambda store: store.list_replays(2000, "home", "b0"),
    "events": lambda store: store.list_events(20),
    "changes": lambda store: store.list_changes("home", 20),
    "setting": lambda store: store.read_setting("password"),
    "series": lambda store: store.read_series(_END_S - 3600, _END_S, 60),
    "series of a site": lambda store: store.read_series(_END_S - 3600, _END_S, 60, "home"),
    "series of weeks": lambda store: store.read_series(_END_S - 14 * 86400, _END_S, 7200),
    "histogram": lambda store: store.read_histograms(),
    "totals": lambda store: store.count_samples("home"),
    "save": lambda store: store.save([("home", make(2**40 + i)) for i in range(500)]),
    "save again": lambda store: store.save(
        [("home", make(2**40 + i, exit="cloud")) for i in range(500)]
    ),
    "label": lambda store: store.set_label("home", 5, 1, "ada", 1.0),
    "add_event": lambda store: store.add_event(1.0, "home", "cam1", "died", key="1"),
    "add_change": lambda store: store.add_change(Change(1.0, "home", "a", {}, {}, 0, "applied")),
    "prune nothing": lambda store: store.prune(0.0, 10.0, 100),
    "prune": lambda store: store.prune(5.0, 0.0, 100),
}
MOST_ROWS = LATENCY_WINDOW + 2_000  # that one statement may look at


@pytest.mark.parametrize("name", READS)
def test_no_statement_looks_at_all_rows(big_store: Store, name: str) -> None:
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

    event.listen(big_store.database.engine, "before_cursor_execute", explain)
    try:
        READS[name](big_store)
    finally:
        event.remove(big_store.database.engine, "before_cursor_execute", explain)
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
    return max(_list_rows_read(found[0]["Plan"]))


def _list_rows_read(node: dict[str, Any]) -> Iterator[float]:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    yield (node["Actual Rows"] + removed) * node["Actual Loops"]
    for child in node.get("Plans", ()):
        yield from _list_rows_read(child)
