"""The cloud's database: exactly one answer per site and sample, whatever the order of arrival.

One thread writes, any number read. Totals are kept beside the answers and change in the same
transaction, so that a page over a million rows costs what a page over a hundred does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    MetaData,
    Row,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    case,
    create_engine,
    event,
    func,
    insert,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from ddnn.errors import ConfigError, LinkError
from ddnn.exits.answers import better
from ddnn.exits.hierarchy import EXITS
from ddnn.protocol.messages import Answer

LATENCY_WINDOW = 10_000  # the newest answers that percentiles are taken over
BUSY_TIMEOUT_S = 5.0  # how long a call waits for another writer, or a free connection
_MOST_BYTES = 1 << 31  # per sample; 62 devices with a message of the greatest size stay below
_KEYS_PER_QUERY = 500  # databases bound the parameters of one statement

_METADATA = MetaData()
# SQLite gives only "INTEGER PRIMARY KEY" to the row id, others want 64 bits said.
_KEY = BigInteger().with_variant(Integer, "sqlite")

ANSWERS = Table(
    "answers",
    _METADATA,
    Column("id", _KEY, primary_key=True),  # order of first arrival
    Column("site", String(64), nullable=False),
    Column("sample", BigInteger, nullable=False),
    Column("node", String(64), nullable=False),
    Column("exit", String(16), nullable=False),
    Column("label", Integer, nullable=False),
    Column("truth", Integer),
    Column("correct", SmallInteger),  # 1, 0; null where the truth is not known
    Column("probabilities", Text, nullable=False),  # JSON, as members and missing
    Column("eta", Double, nullable=False),
    Column("members", Text, nullable=False),
    Column("missing", Text, nullable=False),
    Column("members_count", Integer, nullable=False),
    Column("quality", String(16), nullable=False),
    Column("expected_accuracy", Double),
    Column("bundle", String(16), nullable=False),
    Column("captured_at_s", Double, nullable=False),
    Column("answered_at_s", Double, nullable=False),
    Column("first_answered_at_s", Double, nullable=False),
    Column("latency_s", Double, nullable=False),
    Column("late", Boolean, nullable=False),
    Column("payload_bytes", BigInteger, nullable=False),
    Column("wire_bytes", BigInteger, nullable=False),
    UniqueConstraint("site", "sample"),
    Index("answers_newest_of_site", "site", "id"),
)

# Sums are doubles: exact for integers below 2^53, and too great a one raises no error.
_SUMS = (
    "answered",
    "known",
    "correct",
    "late",
    "expected",
    "expected_accuracy",
    "members",
    "payload_bytes",
    "wire_bytes",
)
TOTALS = Table(
    "totals",
    _METADATA,
    Column("site", String(64), primary_key=True),
    Column("exit", String(16), primary_key=True),
    Column("quality", String(16), primary_key=True),
    *(Column(name, Double, nullable=False) for name in _SUMS),
)

EVENTS = Table(
    "events",
    _METADATA,
    Column("id", _KEY, primary_key=True),
    Column("at_s", Double, nullable=False),
    Column("site", String(64), nullable=False),
    Column("node", String(64), nullable=False),
    Column("what", Text, nullable=False),
)


class Record(msgspec.Struct, frozen=True):
    """The best answer to a sample so far, and when (wall clock) any answer was first given."""

    site: str
    answer: Answer
    first_answered_at_s: float

    def merge(self, other: Record) -> Record:
        return Record(
            self.site,
            better(self.answer, other.answer),
            min(self.first_answered_at_s, other.first_answered_at_s),
        )


class NodeEvent(msgspec.Struct, frozen=True):
    """Something that happened to a node: it joined, was lost, …"""

    at_s: float
    site: str
    node: str
    what: str


class ExitSummary(msgspec.Struct, frozen=True):
    """What one exit answered. `share` is of all answers; None: nothing to measure it on."""

    answered: int
    share: float
    accuracy: float | None
    latency_p50_s: float | None
    latency_p99_s: float | None


class Summary(msgspec.Struct, frozen=True):
    """How the answers are. None: nothing to measure it on.

    `accuracy` counts the `known` answers, those whose truth is known; `expected_accuracy` is
    the mean of what the answers say of themselves. Bytes are means per sample and device, over
    the devices that took part.
    """

    answered: int
    known: int
    accuracy: float | None
    expected_accuracy: float | None
    late: int
    quality: dict[str, int]
    exits: dict[str, ExitSummary]
    payload_bytes: float | None
    wire_bytes: float | None


class Store:
    """Answers and events behind an SQLAlchemy URL such as `sqlite:////var/lib/ddnn/cloud.db`.

    Every method may be called from any thread. They raise LinkError where the database is
    locked, broken or away; nothing has then been written, and the same call may be repeated.
    """

    def __init__(self, url: str) -> None:
        """Open the database and create its tables; ConfigError where the URL is wrong."""
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
                raise ConfigError(
                    "a SQLite database in memory is another one in every thread; "
                    "name a file: sqlite:///cloud.db"
                )
            self._name = parsed.render_as_string(hide_password=True)
            self._engine = create_engine(parsed, pool_pre_ping=True, pool_timeout=BUSY_TIMEOUT_S)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise ConfigError(
                f"the database URL cannot be used: {error}; expected for example "
                "sqlite:///cloud.db, with the driver of another database installed"
            ) from error
        if parsed.get_backend_name() == "sqlite":
            event.listen(self._engine, "connect", _open_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._writer = self._engine.execution_options(ddnn_write=True)
        with self._write() as link:
            _METADATA.create_all(link)

    def close(self) -> None:
        self._engine.dispose()

    # -------------------------------------------------------------- writing

    def save(self, answers: Sequence[tuple[str, Answer]]) -> None:
        """Merge (site, answer) pairs in one transaction: all of them, or none and LinkError."""
        batch: dict[tuple[str, int], Record] = {}
        for site, answer in answers:
            _merge(batch, Record(site, answer, answer.answered_at_s))
        with self._write() as link:
            stored = _find(link, batch)
            new: list[dict[str, Any]] = []
            changed: list[dict[str, Any]] = []
            totals: dict[tuple[str, str, str], list[float]] = defaultdict(
                lambda: [0.0] * len(_SUMS)
            )
            for key, record in batch.items():
                if key not in stored:
                    new.append(_row(record))
                else:
                    row_id, old = stored[key]
                    record = old.merge(record)
                    if record == old:
                        continue
                    changed.append({**_row(record), "row_id": row_id})
                    _tally(totals, old, -1.0)
                _tally(totals, record, 1.0)
            if new:
                link.execute(insert(ANSWERS), new)
            if changed:
                link.execute(update(ANSWERS).where(ANSWERS.c.id == bindparam("row_id")), changed)
            _add_totals(link, totals)

    def add_event(self, at_s: float, site: str, node: str, what: str) -> None:
        with self._write() as link:
            link.execute(insert(EVENTS), {"at_s": at_s, "site": site, "node": node, "what": what})

    # -------------------------------------------------------------- reading

    def summary(self, site: str | None = None, last: int | None = None) -> Summary:
        """Over everything, or one site, or the `last` samples that arrived.

        Latencies are always over the newest 10,000 of these.
        """
        with self._read() as link:
            if last is None:
                totals = select(TOTALS)
                if site is not None:
                    totals = totals.where(TOTALS.c.site == site)
            else:
                totals = _windowed_totals(site, last)
            window = _newest(site, min(last or LATENCY_WINDOW, LATENCY_WINDOW), "exit", "latency_s")
            return _summary(link.execute(totals).all(), link.execute(window).all())

    def newest(self, n: int, site: str | None = None) -> list[Record]:
        """The n samples that arrived last, newest first."""
        with self._read() as link:
            return [_record(row) for row in link.execute(_newest(site, n))]

    def answers(self, site: str, first: int, last: int, n: int) -> list[Record]:
        """At most n samples of a site with first <= sample <= last, in order of the sample."""
        query = select(*_COLUMNS).where(
            ANSWERS.c.site == site, ANSWERS.c.sample >= first, ANSWERS.c.sample <= last
        )
        with self._read() as link:
            return [_record(row) for row in link.execute(query.order_by(ANSWERS.c.sample).limit(n))]

    def events(self, n: int) -> list[NodeEvent]:
        """The n newest events, newest first."""
        rows = select(EVENTS.c.at_s, EVENTS.c.site, EVENTS.c.node, EVENTS.c.what)
        with self._read() as link:
            return [
                NodeEvent(*row) for row in link.execute(rows.order_by(EVENTS.c.id.desc()).limit(n))
            ]

    # ---------------------------------------------------------- transactions

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._reachable(), self._writer.begin() as link:
            yield link

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._reachable(), self._engine.begin() as link:
            yield link

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise LinkError(
                f"database {self._name}: {cause}; nothing was written, try again. If it stays: "
                "is its disk full, its folder writable, another program holding it, its server up?"
            ) from error


# ------------------------------------------------------------------- SQLite


def _open_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: it would do so too late, see below.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA journal_mode = WAL")  # readers never wait for the writer
    # A power cut may lose the newest answers (their nodes have them still), never the file.
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(link: Connection) -> None:
    # A writer locks before its first read: to upgrade later fails at once if another wrote since.
    writes = link.get_execution_options().get("ddnn_write")
    link.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


# --------------------------------------------------------------------- rows

_LISTS = ("probabilities", "members", "missing")
_FIELDS = Answer.__struct_fields__
_COLUMNS = [ANSWERS.c[name] for name in ("id", "site", "first_answered_at_s", *_FIELDS)]


def _row(record: Record) -> dict[str, Any]:
    answer = record.answer
    row = {name: getattr(answer, name) for name in _FIELDS}
    for name in _LISTS:
        row[name] = msgspec.json.encode(row[name]).decode()
    row["site"] = record.site
    row["first_answered_at_s"] = record.first_answered_at_s
    row["members_count"] = len(answer.members)
    row["correct"] = _correct(answer)
    return row


def _record(row: Row[Any]) -> Record:
    fields = dict(row._mapping)
    for name in _LISTS:
        fields[name] = msgspec.json.decode(fields[name])
    answer = Answer(**{name: fields[name] for name in _FIELDS})
    return Record(fields["site"], answer, fields["first_answered_at_s"])


def _correct(answer: Answer) -> bool | None:
    if answer.truth is None or answer.truth < 0:
        return None
    return answer.label == answer.truth


def _merge(batch: dict[tuple[str, int], Record], record: Record) -> None:
    key = (record.site, record.answer.sample)
    batch[key] = batch[key].merge(record) if key in batch else record


def _find(
    link: Connection, keys: Mapping[tuple[str, int], object]
) -> dict[tuple[str, int], tuple[int, Record]]:
    """The rows that there are already, with their ids."""
    samples: dict[str, list[int]] = defaultdict(list)
    for site, sample in sorted(keys):
        samples[site].append(sample)
    found = {}
    for site, wanted in samples.items():
        for start in range(0, len(wanted), _KEYS_PER_QUERY):
            some = wanted[start : start + _KEYS_PER_QUERY]
            query = select(*_COLUMNS).where(ANSWERS.c.site == site, ANSWERS.c.sample.in_(some))
            # SQLite's writer holds the whole file; elsewhere a second cloud must wait for the row.
            for row in link.execute(query.with_for_update()):
                found[site, row.sample] = (row.id, _record(row))
    return found


def _newest(site: str | None, n: int, *columns: str) -> Any:
    picked = [ANSWERS.c[name] for name in columns] or _COLUMNS
    query = select(*picked).order_by(ANSWERS.c.id.desc()).limit(n)
    return query if site is None else query.where(ANSWERS.c.site == site)


# ------------------------------------------------------------------- totals


def _tally(totals: dict[tuple[str, str, str], list[float]], record: Record, sign: float) -> None:
    """Add (sign 1) or take back (-1) what a record contributes to each of _SUMS.

    Clamped to what is possible: one absurd value must not ruin the sums for good.
    """
    answer = record.answer
    correct, expected = _correct(answer), answer.expected_accuracy
    sums = totals[record.site, answer.exit, answer.quality]
    contributions = (
        1,
        correct is not None,
        correct is True,
        answer.late,
        expected is not None,
        min(max(expected or 0.0, 0.0), 1.0),
        len(answer.members),
        min(answer.payload_bytes, _MOST_BYTES),
        min(answer.wire_bytes, _MOST_BYTES),
    )
    for i, contribution in enumerate(contributions):
        sums[i] += sign * contribution


def _add_totals(link: Connection, totals: Mapping[tuple[str, str, str], Sequence[float]]) -> None:
    for (site, exit_, quality), sums in sorted(totals.items()):
        key = {"site": site, "exit": exit_, "quality": quality}
        change = dict(zip(_SUMS, sums, strict=True))
        matched = link.execute(
            update(TOTALS)
            .where(*(TOTALS.c[name] == value for name, value in key.items()))
            .values({name: TOTALS.c[name] + value for name, value in change.items()})
        )
        if matched.rowcount == 0:
            link.execute(insert(TOTALS), {**key, **change})


def _windowed_totals(site: str | None, last: int) -> Any:
    """The sums of TOTALS, over the newest rows only."""
    row = _newest(
        site,
        last,
        *("exit", "quality", "correct", "late", "expected_accuracy", "members_count"),
        *("payload_bytes", "wire_bytes"),
    ).subquery()
    sums = {
        "answered": func.count(),
        "known": func.count(row.c.correct),
        "correct": func.sum(row.c.correct),
        "late": func.sum(case((row.c.late, 1), else_=0)),
        "expected": func.count(row.c.expected_accuracy),
        "expected_accuracy": func.sum(row.c.expected_accuracy),
        "members": func.sum(row.c.members_count),
        "payload_bytes": func.sum(row.c.payload_bytes.cast(Double)),
        "wire_bytes": func.sum(row.c.wire_bytes.cast(Double)),
    }
    return select(
        row.c.exit, row.c.quality, *(value.label(name) for name, value in sums.items())
    ).group_by(row.c.exit, row.c.quality)


def _summary(totals: Sequence[Row[Any]], latencies: Sequence[Row[Any]]) -> Summary:
    def over(name: str, **where: str) -> float:
        """The sum of a column over the rows that match; null is nothing."""
        rows = (r for r in totals if all(getattr(r, key) == is_ for key, is_ in where.items()))
        return sum(getattr(row, name) or 0.0 for row in rows)

    answered = over("answered")
    times: dict[str, list[float]] = defaultdict(list)
    for row in latencies:
        times[row.exit].append(row.latency_s)

    def of_exit(exit_: str) -> ExitSummary:
        p50_s, p99_s = _percentiles(times[exit_])
        count = over("answered", exit=exit_)
        return ExitSummary(
            answered=round(count),
            share=count / answered if answered else 0.0,
            accuracy=_mean(over("correct", exit=exit_), over("known", exit=exit_)),
            latency_p50_s=p50_s,
            latency_p99_s=p99_s,
        )

    return Summary(
        answered=round(answered),
        known=round(over("known")),
        accuracy=_mean(over("correct"), over("known")),
        expected_accuracy=_mean(over("expected_accuracy"), over("expected")),
        late=round(over("late")),
        quality={q: round(over("answered", quality=q)) for q in ("full", "degraded")},
        exits={exit_: of_exit(exit_) for exit_ in EXITS},
        payload_bytes=_mean(over("payload_bytes"), over("members")),
        wire_bytes=_mean(over("wire_bytes"), over("members")),
    )


def _mean(total: float, count: float) -> float | None:
    return total / count if count else None


def _percentiles(times_s: Sequence[float]) -> tuple[float | None, float | None]:
    if not times_s:
        return None, None
    return float(np.percentile(times_s, 50)), float(np.percentile(times_s, 99))
