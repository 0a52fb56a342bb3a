"""Inserts many rows, some of which may exist already, in the SQL of each database."""

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
    """Insert the rows whose keys do not exist yet; return columns of the inserted ones."""
    statement = _make_insert(link.dialect.name, table, tuple(rows[0]), returned)
    return link.execute(statement, _make_parameters(link, rows)).all()


def insert_or_replace(link: Connection, table: Table, rows: Rows) -> None:
    """Insert the rows; a row whose key exists replaces the old row."""
    link.execute(_make_upsert(link.dialect.name, table, False), _make_parameters(link, rows))


def insert_or_add(link: Connection, table: Table, rows: Rows) -> None:
    """Insert the rows; the values of a row whose key exists are added to the old row."""
    link.execute(_make_upsert(link.dialect.name, table, True), _make_parameters(link, rows))


def _make_parameters(link: Connection, rows: Rows) -> Rows:
    if link.dialect.name == "sqlite":
        return rows
    return [{name: [row[name] for row in rows] for name in rows[0]}]


# Cached, because making a statement takes longer than executing it.


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
    """Make an INSERT of rows with these columns.

    PostgreSQL gets each column as one array: the statement has the same length for any number of
    rows, and takes a fraction of the time that parameters for a thousand rows take.
    """
    if dialect == "sqlite":
        return sqlite.insert(table)
    columns = [table.c[name] for name in names]
    arrays = func.unnest(*map(_make_array_parameter, columns)).table_valued(*names).render_derived()
    return postgresql.insert(table).from_select(columns, select(arrays))


def _make_array_parameter(column: Column[Any]) -> Any:
    # A cast with a length would truncate a text; without one the column refuses it.
    kind = Text() if isinstance(column.type, String) else column.type
    return bindparam(column.name, type_=ARRAY(kind))
