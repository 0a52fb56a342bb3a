"""Labels by persons, votes, series, counters, event keys, threshold audit, settings."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_BOUNDS_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1),
    *(0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0),
)
_BUCKETS = tuple(f"latency_{i}" for i in range(len(_BOUNDS_S) + 1))
_MAX_BYTES = 1 << 31
_MAX_LATENCY_S = 3600
# Each as a sum over the released table of answers, which has no labels of persons.
_SUMS = {
    "answered": "COUNT(*)",
    "known": "COUNT(correct)",
    "correct": "COALESCE(SUM(correct), 0)",
    "labelled": "0",
    "late": "SUM(CASE WHEN late THEN 1 ELSE 0 END)",
    "expected": "COUNT(expected_accuracy)",
    "expected_accuracy": "COALESCE(SUM(CASE WHEN expected_accuracy < 0 THEN 0 "
    "WHEN expected_accuracy > 1 THEN 1 ELSE expected_accuracy END), 0)",
    "members": "SUM(members_count)",
    "payload_bytes": f"SUM(CASE WHEN payload_bytes > {_MAX_BYTES} THEN {_MAX_BYTES} "
    "ELSE payload_bytes END)",
    "wire_bytes": f"SUM(CASE WHEN wire_bytes > {_MAX_BYTES} THEN {_MAX_BYTES} ELSE wire_bytes END)",
}


def upgrade() -> None:
    for column in (
        sa.Column("votes", sa.Text, nullable=False, server_default="{}"),
        sa.Column("exit_trace", sa.Text, nullable=False, server_default="[]"),
        sa.Column("labelled", sa.Integer),
        sa.Column("labelled_by", sa.Text),
        sa.Column("labelled_at_s", sa.Double),
        sa.Column("stored_at_s", sa.Double, nullable=False, server_default="0"),
    ):
        op.add_column("answers", column)
    # Old answers have no time of storing: they are kept as if they were stored now.
    op.execute(f"UPDATE answers SET stored_at_s = {time.time()!r}")  # noqa: S608 - a float
    op.add_column("totals", sa.Column("labelled", sa.Double, nullable=False, server_default="0"))
    op.create_table(
        "rollups",
        sa.Column("site", sa.String(64), primary_key=True),
        sa.Column("step_s", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("start_s", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("exit", sa.String(16), primary_key=True),
        sa.Column("quality", sa.String(16), primary_key=True),
        *_make_double_columns((*_SUMS, *_BUCKETS)),
    )
    op.create_index("rollups_of_all_sites", "rollups", ["step_s", "start_s"])
    op.create_table(
        "counters",
        sa.Column("site", sa.String(64), primary_key=True),
        sa.Column("exit", sa.String(16), primary_key=True),
        sa.Column("quality", sa.String(16), primary_key=True),
        *_make_double_columns(("latency_s", *_BUCKETS)),
    )
    op.add_column("events", sa.Column("key", sa.Text))
    op.create_index("events_by_key", "events", ["site", "node", "key"], unique=True)
    op.create_index("events_by_time", "events", ["at_s"])
    op.create_index("events_of_node", "events", ["site", "node", "id"])
    op.create_table(
        "changes",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("at_s", sa.Double, nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("thresholds", sa.Text, nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("bundle", sa.String(16), nullable=False),
    )
    op.create_index("changes_by_revision", "changes", ["site", "revision"], unique=True)
    op.create_table(
        "settings",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    _count_stored_answers()


def downgrade() -> None:
    """Delete the labels that persons gave; accuracy then follows the truth of the sources."""
    known = "CASE WHEN truth IS NULL OR truth < 0 THEN NULL WHEN truth = label THEN 1 ELSE 0 END"
    for name, counts in (("known", "COUNT"), ("correct", "SUM")):
        change = f"COALESCE({counts}({known}), 0) - COALESCE({counts}(correct), 0)"
        op.execute(
            f"UPDATE totals SET {name} = {name} + (SELECT {change} FROM answers "  # noqa: S608
            "WHERE labelled IS NOT NULL AND answers.site = totals.site "
            'AND answers."exit" = totals."exit" AND answers.quality = totals.quality)'
        )
    op.execute(f"UPDATE answers SET correct = {known} WHERE labelled IS NOT NULL")  # noqa: S608
    op.drop_table("settings")
    op.drop_table("changes")
    op.drop_index("events_of_node", "events")
    op.drop_index("events_by_time", "events")
    op.drop_index("events_by_key", "events")
    op.drop_column("events", "key")
    op.drop_table("counters")
    op.drop_table("rollups")
    op.drop_column("totals", "labelled")
    for name in ("stored_at_s", "labelled_at_s", "labelled_by", "labelled", "exit_trace", "votes"):
        op.drop_column("answers", name)


def _make_double_columns(names: tuple[str, ...]) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Double, nullable=False) for name in names]


def _count_stored_answers() -> None:
    """Fill series and counters from the answers that the released version stored, in SQL."""
    columns = ", ".join((*_SUMS, *_BUCKETS))
    sums = ", ".join((*_SUMS.values(), *_make_histogram_sums()))
    for step_s in (60, 3600):
        # Some databases cast by rounding, others by truncating: subtract one where it rounded up.
        quotient = f"CAST(first_answered_at_s / {step_s} AS BIGINT)"
        start = (
            f"{step_s} * CASE WHEN {quotient} > first_answered_at_s / {step_s} "
            f"THEN {quotient} - 1 ELSE {quotient} END"
        )
        op.execute(
            f'INSERT INTO rollups (site, step_s, start_s, "exit", quality, {columns}) '  # noqa: S608
            f'SELECT site, {step_s}, {start}, "exit", quality, {sums} FROM answers '
            f'GROUP BY site, {start}, "exit", quality'
        )
    latency = (
        f"SUM(CASE WHEN latency_s < 0 THEN 0 WHEN latency_s > {_MAX_LATENCY_S} "
        f"THEN {_MAX_LATENCY_S} ELSE latency_s END)"
    )
    histogram = ", ".join(_make_histogram_sums())
    op.execute(
        f'INSERT INTO counters (site, "exit", quality, latency_s, {", ".join(_BUCKETS)}) '  # noqa: S608
        f'SELECT site, "exit", quality, {latency}, {histogram} FROM answers '
        'GROUP BY site, "exit", quality'
    )


def _make_histogram_sums() -> list[str]:
    lows, highs = (None, *_BOUNDS_S), (*_BOUNDS_S, None)
    return [
        "SUM(CASE WHEN "
        + " AND ".join(
            [f"latency_s > {low}"] * (low is not None)
            + [f"latency_s <= {high}"] * (high is not None)
        )
        + " THEN 1 ELSE 0 END)"
        for low, high in zip(lows, highs, strict=True)
    ]
