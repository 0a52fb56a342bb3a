"""The tables. The migrations make them; a test compares the two on both databases."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData()
# SQLite takes only "INTEGER PRIMARY KEY" for the row id; PostgreSQL needs the 64 bits declared.
_KEY = BigInteger().with_variant(Integer, "sqlite")

ANSWERS = Table(
    "answers",
    METADATA,
    Column("id", _KEY, primary_key=True),  # order of first arrival
    Column("site", String(64), nullable=False),
    Column("sample", BigInteger, nullable=False),
    Column("node", String(64), nullable=False),
    Column("exit", String(16), nullable=False),
    Column("label", Integer, nullable=False),
    Column("truth", Integer),  # given by the source
    Column("correct", SmallInteger),  # 1, 0; null where the truth is unknown
    Column("probabilities", Text, nullable=False),  # JSON, like the other lists
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
    Column("votes", Text, nullable=False, server_default="{}"),
    Column("exit_trace", Text, nullable=False, server_default="[]"),
    Column("labelled", Integer),  # given by a person; it takes precedence over `truth`
    Column("labelled_by", Text),
    Column("labelled_at_s", Double),
    # By this program's clock: a wrong clock of a node must not delete its answers early.
    Column("stored_at_s", Double, nullable=False, server_default="0"),
    UniqueConstraint("site", "sample"),
    Index("answers_newest_of_site", "site", "id"),
)

# Sums are doubles: exact for integers below 2^53, and larger ones raise no error.
SUMS = (
    "answered",
    "known",
    "correct",
    "labelled",
    "late",
    "expected",
    "expected_accuracy",
    "members",
    "payload_bytes",
    "wire_bytes",
)

LATENCY_BOUNDS_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1),
    *(0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0),
)  # upper bounds, inclusive; one more bucket takes the latencies above all of them
BUCKETS = tuple(f"latency_{i}" for i in range(len(LATENCY_BOUNDS_S) + 1))


def _make_sum_columns(names: tuple[str, ...]) -> list[Column[float]]:
    return [Column(name, Double, nullable=False) for name in names]


# Sums over the answers, including deleted ones; a better answer moves its sample to its own row.
TOTALS = Table(
    "totals",
    METADATA,
    Column("site", String(64), primary_key=True),
    Column("exit", String(16), primary_key=True),
    Column("quality", String(16), primary_key=True),
    *_make_sum_columns(SUMS),
)

# The same sums by the time of the first answer, with a histogram of the latencies.
ROLLUP_STEPS_S = (60, 3600)
ROLLUPS = Table(
    "rollups",
    METADATA,
    Column("site", String(64), primary_key=True),
    Column("step_s", Integer, primary_key=True, autoincrement=False),
    Column("start_s", BigInteger, primary_key=True, autoincrement=False),
    Column("exit", String(16), primary_key=True),
    Column("quality", String(16), primary_key=True),
    *_make_sum_columns((*SUMS, *BUCKETS)),
    Index("rollups_of_all_sites", "step_s", "start_s"),
)

# The counters of /metrics, which must never fall: each sample counts once, at the exit and quality
# of the answer that arrived first; a better answer does not move it.
COUNTERS = Table(
    "counters",
    METADATA,
    Column("site", String(64), primary_key=True),
    Column("exit", String(16), primary_key=True),
    Column("quality", String(16), primary_key=True),
    *_make_sum_columns(("latency_s", *BUCKETS)),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("id", _KEY, primary_key=True),
    Column("at_s", Double, nullable=False),
    Column("site", String(64), nullable=False),
    Column("node", String(64), nullable=False),
    Column("what", Text, nullable=False),
    Column("key", Text),  # null: the event equals no other one
    Index("events_by_key", "site", "node", "key", unique=True),
    Index("events_by_time", "at_s"),
    Index("events_of_node", "site", "node", "id"),
)

CHANGES = Table(
    "changes",
    METADATA,
    Column("id", _KEY, primary_key=True),
    Column("at_s", Double, nullable=False),
    Column("site", String(64), nullable=False),
    Column("by", Text, nullable=False),
    Column("thresholds", Text, nullable=False),  # JSON, like `before`
    Column("before", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("what", String(16), nullable=False),
    Column("bundle", String(16), nullable=False),
    Index("changes_by_revision", "site", "revision", unique=True),
)

SETTINGS = Table(
    "settings",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
