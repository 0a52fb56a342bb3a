"""Inserting many rows at once, with ON CONFLICT, in the words of each database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, Connection, String, Table, Text, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

Rows = Sequence[Mapping[str, Any]]


def inserting(
    link: Connection, table: Table, rows: Rows
) -> tuple[sqlite.Insert | postgresql.Insert, Rows]:
    """An INSERT that knows ON CONFLICT, and what to execute it with. All rows have the same keys.

    PostgreSQL gets a column as one array: a statement of one length, whatever the number of
    rows, which takes its driver and its parser a fraction of the time that a thousand rows of
    parameters take.
    """
    if link.dialect.name == "sqlite":
        return sqlite.insert(table), rows
    columns = [table.c[name] for name in rows[0]]
    arrays = func.unnest(
        *(
            # No length in the cast, which would cut a text off: the column refuses it instead.
            bindparam(
                column.name, type_=ARRAY(Text if isinstance(column.type, String) else column.type)
            )
            for column in columns
        )
    ).table_valued(*(column.name for column in columns))
    arrays = arrays.render_derived()
    statement = postgresql.insert(table).from_select(columns, select(arrays))
    return statement, [{name: [row[name] for row in rows] for name in rows[0]}]
