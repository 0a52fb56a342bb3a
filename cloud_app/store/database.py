"""A database behind a URL, SQLite or PostgreSQL, with current tables and bounded waits.

SQLite waits for another writer at most BUSY_TIMEOUT_S. PostgreSQL ends a statement itself after
STATEMENT_TIMEOUT_S. Where the server sends nothing at all (it is stopped, or its network is gone),
the client closes the connection after SILENCE_S.

SQLite goes on to read and write a file that was deleted, replaced or hidden by a mount, and all of
it would be lost with the process. So the open file is compared with the one at the path before and
after every transaction.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from cloud_app.store import migrations
from ddnn.errors import ConfigError, LinkError

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 5.0  # how long a call waits for another writer, or a free connection
CONNECT_TIMEOUT_S = 3
STATEMENT_TIMEOUT_S = 4.0
SILENCE_S = 5.0
IDLE_TIMEOUT_S = 10.0  # a client that is idle within a transaction loses its locks
MIGRATION_S = 600.0  # how long a process that starts waits for another one that migrates
_EXPECTED = "expected for example sqlite:///cloud.db or postgresql://user@host/ddnn"
_WAIT = "ddnn_wait_s"
_WRITES = "ddnn_writes"
_WRITER = 0x64646E6E  # the number of the writer's advisory lock


class Database:
    """Transactions on a database; LinkError where it is locked, broken or away."""

    def __init__(self, url: str) -> None:
        """Open the database and migrate its tables; ConfigError where the URL is wrong."""
        self.engine, self.name = _make_engine(url)
        self._writer = self.engine.execution_options(**{_WRITES: True})
        self._file = self.engine.url.database if self.engine.dialect.name == "sqlite" else None
        self._identity: tuple[int, int] | None = None  # of the file that is open
        self._log: int | None = None  # the inode of the write-ahead log in the last transaction
        self._reopening = threading.Lock()
        try:
            self.migrate()
            self._identity = self._identify_file()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Begin a transaction that writes; only one runs at a time, also on PostgreSQL.

        Otherwise clouds that write the same samples in different orders would deadlock; and they
        all update the same rows of sums.
        """
        file = self._require_file()
        self._require_log()
        with self._convert_errors(), self._writer.begin() as link:
            if link.dialect.name == "postgresql":
                link.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER})")
            log = self._log = self._find_log()
            yield link
        if self._require_file() != file or self._find_log() != log:  # or another thread noticed it
            raise LinkError(f"database {self.name}: its file was replaced; try again")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        self._require_file()
        with self._convert_errors(), self.engine.begin() as link:
            yield link

    def _identify_file(self) -> tuple[int, int] | None:
        """Device and inode of the file at the path; None where there is no file."""
        if self._file is None:
            return None
        try:
            found = os.stat(self._file)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _require_file(self) -> tuple[int, int] | None:
        """Open the file at the path if it is another one than before, and raise LinkError once.

        Returns which file is open; None: there is none, or the database is being opened.
        """
        if self._identity is None or self._identify_file() == self._identity:
            return self._identity
        with self._reopening:
            if self._identify_file() == self._identity:
                return self._identity
            before, self._identity = self._identity, None
            self.engine.dispose()
            try:
                self.migrate()
                self._identity = self._identify_file()
            finally:
                self._identity = self._identity or before
        text = f"database {self.name}: its file was deleted or replaced"
        log.error("%s: the one at its path is used now", text)
        raise LinkError(f"{text}; nothing was written, try again with the one at its path now")

    def _find_log(self) -> int | None:
        """The inode of the write-ahead log at the path; None where there is none."""
        try:
            return None if self._file is None else os.stat(f"{self._file}-wal").st_ino
        except OSError:
            return None

    def _require_log(self) -> None:
        """Where the write-ahead log was deleted, write the one that is still open into the file.

        SQLite itself deletes it when the last connection is closed.
        """
        if self._log is None or self._find_log() == self._log:
            return
        with self._reopening:
            if self._find_log() == self._log:
                return
            self._log = None
            self._write_log_back()
            self.engine.dispose()

    def _write_log_back(self) -> None:
        with contextlib.suppress(SQLAlchemyError), self.engine.connect() as link:
            driver: Any = link.connection.driver_connection
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def migrate(self, to: str = migrations.HEAD) -> None:
        """Migrate the tables to a revision, up or down, in one transaction of one process."""
        with self.read() as link:
            if migrations.read_revision(link) == to:
                return
        patient = self._writer.execution_options(**{_WAIT: MIGRATION_S})
        with self._convert_errors(), patient.begin() as link:
            if link.dialect.name == "postgresql":
                _raise_time_limits(link)
                link.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITER})")
            migrations.run_migrations(link, to, self.name)

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            cause = " ".join(str(getattr(error, "orig", None) or error).split())
            raise LinkError(
                f"database {self.name}: {cause}; nothing was written, try again. If this persists: "
                "is its disk full, its folder writable, another program holding it, its server up?"
            ) from error


def _make_engine(url: str) -> tuple[Engine, str]:
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise ConfigError(
                "a SQLite database in memory is a different one in every thread; "
                "name a file: sqlite:///cloud.db"
            )
        if backend in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        name = parsed.render_as_string(hide_password=True)
        engine = create_engine(parsed, pool_pre_ping=True, pool_timeout=BUSY_TIMEOUT_S)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError(f"the database URL cannot be used: {error}; {_EXPECTED}") from error
    except (ValueError, TypeError):  # their text may have a piece of the password
        raise ConfigError(
            "the database URL cannot be used: its port or an option is wrong, or a character of "
            f"the password is not written as %XX; {_EXPECTED}"
        ) from None
    if backend == "sqlite":
        event.listen(engine, "connect", _open_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.dialect.name == "postgresql":
        event.listen(engine, "do_connect", _connect_postgresql)
    else:
        raise ConfigError(f"the database URL names {backend}; {_EXPECTED}")
    return engine, name


# ------------------------------------------------------------------- SQLite


def _open_sqlite(connection: Any, _record: object) -> None:
    # The driver must not begin transactions itself: it begins them too late, see _begin_sqlite.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT_S * 1000)}")
    _use_write_ahead_log(connection)  # readers never wait for the writer
    # A node deletes its copy of an answer after the commit: each commit must reach the disk.
    connection.execute("PRAGMA synchronous = FULL")


def _use_write_ahead_log(connection: Any) -> None:
    """Switch a new file over. Where two processes do so at once, SQLite does not wait itself."""
    until_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until_s:
                raise
        time.sleep(0.05)


def _begin_sqlite(link: Connection) -> None:
    # A writer locks before its first read: upgrading a read lock fails if another wrote since.
    options = link.get_execution_options()
    wait_s = options.get(_WAIT, BUSY_TIMEOUT_S)
    link.exec_driver_sql(f"PRAGMA busy_timeout = {round(wait_s * 1000)}")
    link.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_WRITES) else "BEGIN")


# --------------------------------------------------------------- PostgreSQL


def _connect_postgresql(_dialect: Any, _record: Any, args: list[Any], named: dict[str, Any]) -> Any:
    import psycopg

    class BoundedConnection(psycopg.Connection[Any]):
        """A connection that is closed where the server sends nothing for `silence_s`."""

        silence_s = SILENCE_S

        def wait(self, gen: Any, *args: Any, **named: Any) -> Any:
            try:
                return super().wait(_limit_silence(gen, self.silence_s), *args, **named)
            except TimeoutError as error:
                self.close()  # a connection within a statement cannot be used again
                raise psycopg.OperationalError(str(error)) from None

    named.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    named.setdefault("application_name", "ddnn")
    # Preparing statements of a thousand rows would cost more of the server's memory than it saves.
    named.setdefault("prepare_threshold", None)
    limits = {
        "statement_timeout": STATEMENT_TIMEOUT_S,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT_S,
    }
    options = [f"-c {name}={round(limit_s * 1000)}" for name, limit_s in limits.items()]
    named["options"] = " ".join([*options, named.get("options", "")]).strip()
    return BoundedConnection.connect(*args, **named)


def _limit_silence(gen: Generator[Any, Any, Any], silence_s: float) -> Generator[Any, Any, Any]:
    """Wrap the driver's generator of one exchange; TimeoutError after `silence_s`."""
    until_s = time.monotonic() + silence_s
    ready = None
    while True:
        try:
            waits_for = gen.send(ready)
        except StopIteration as end:
            return end.value
        ready = yield waits_for
        if ready:
            until_s = time.monotonic() + silence_s
        elif time.monotonic() > until_s:
            raise TimeoutError(f"the server has sent nothing for {silence_s:g} s")


def _raise_time_limits(link: Connection) -> None:
    """Allow this transaction MIGRATION_S; its connection is not used again."""
    link.exec_driver_sql(f"SET LOCAL statement_timeout = {round(MIGRATION_S * 1000)}")
    driver: Any = link.connection.driver_connection
    driver.silence_s = MIGRATION_S
    link.detach()
