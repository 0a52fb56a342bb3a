"""The tables as they were first released."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
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


def upgrade() -> None:
    op.create_table(
        "answers",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("sample", sa.BigInteger, nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("exit", sa.String(16), nullable=False),
        sa.Column("label", sa.Integer, nullable=False),
        sa.Column("truth", sa.Integer),
        sa.Column("correct", sa.SmallInteger),
        sa.Column("probabilities", sa.Text, nullable=False),
        sa.Column("eta", sa.Double, nullable=False),
        sa.Column("members", sa.Text, nullable=False),
        sa.Column("missing", sa.Text, nullable=False),
        sa.Column("members_count", sa.Integer, nullable=False),
        sa.Column("quality", sa.String(16), nullable=False),
        sa.Column("expected_accuracy", sa.Double),
        sa.Column("bundle", sa.String(16), nullable=False),
        sa.Column("captured_at_s", sa.Double, nullable=False),
        sa.Column("answered_at_s", sa.Double, nullable=False),
        sa.Column("first_answered_at_s", sa.Double, nullable=False),
        sa.Column("latency_s", sa.Double, nullable=False),
        sa.Column("late", sa.Boolean, nullable=False),
        sa.Column("payload_bytes", sa.BigInteger, nullable=False),
        sa.Column("wire_bytes", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("site", "sample"),
    )
    op.create_index("answers_newest_of_site", "answers", ["site", "id"])
    op.create_table(
        "totals",
        sa.Column("site", sa.String(64), primary_key=True),
        sa.Column("exit", sa.String(16), primary_key=True),
        sa.Column("quality", sa.String(16), primary_key=True),
        *(sa.Column(name, sa.Double, nullable=False) for name in _SUMS),
    )
    op.create_table(
        "events",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("at_s", sa.Double, nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("node", sa.String(64), nullable=False),
        sa.Column("what", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("events")
    op.drop_table("totals")
    op.drop_table("answers")
