"""Inserting many rows at once where some may be there already, in the words of each database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, Column, Connection, Row, String, Table, Text, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

Rows = Sequence[Mapping[str, Any]]


def insert_new(
    link: Connection, table: Table, rows: Rows, returned: tuple[str, ...]
) -> Sequence[Row[Any]]:
    """Insert the rows that conflict with none that is there; some columns of these come back."""
    statement = _make_insert(link.dialect.name, table, tuple(rows[0]), returned)
    return link.execute(statement, _make_parameters(link, rows)).all()


def insert_or_replace(link: Connection, table: Table, rows: Rows) -> None:
    """Insert the rows; those with a key that is there replace the one with it."""
    link.execute(_make_upsert(link.dialect.name, table, False), _make_parameters(link, rows))


def insert_or_add(link: Connection, table: Table, rows: Rows) -> None:
    """Insert the rows; those with a key that is there are added to the one with it."""
    link.execute(_make_upsert(link.dialect.name, table, True), _make_parameters(link, rows))


def _make_parameters(link: Connection, rows: Rows) -> Rows:
    if link.dialect.name == "sqlite":
        return rows
    return [{name: [row[name] for row in rows] for name in rows[0]}]


# To put these together takes longer than to execute them.


@cache
def _make_insert(
    dialect: str, table: Table, names: tuple[str, ...], returned: tuple[str, ...]
) -> Any:
    statement = _make_statement(dialect, table, names).on_conflict_do_nothing()
    return statement.returning(*(table.c[name] for name in returned))


@cache
def _make_upsert(dialect: str, table: Table, add: bool) -> Any:
    statement = _make_statement(dialect, table, tuple(table.columns.keys()))
    new, key = statement.excluded, table.primary_key.columns
    rest = [column for column in table.columns if column.name not in key]
    return statement.on_conflict_do_update(
        index_elements=list(key),
        set_={
            column.name: column + new[column.name] if add else new[column.name] for column in rest
        },
    )


def _make_statement(dialect: str, table: Table, names: tuple[str, ...]) -> Any:
    """An INSERT of rows with these columns.

    PostgreSQL gets a column as one array: a statement of one length, whatever the number of
    rows, which takes its driver and its parser a fraction of the time that a thousand rows of
    parameters take.
    """
    if dialect == "sqlite":
        return sqlite.insert(table)
    columns = [table.c[name] for name in names]
    arrays = func.unnest(*map(_make_array_parameter, columns)).table_valued(*names).render_derived()
    return postgresql.insert(table).from_select(columns, select(arrays))


def _make_array_parameter(column: Column[Any]) -> Any:
    # No length in the cast, which would cut a text off: the column refuses it instead.
    kind = Text() if isinstance(column.type, String) else column.type
    return bindparam(column.name, type_=ARRAY(kind))
