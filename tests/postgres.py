"""A real PostgreSQL server for tests: its own directory, a port of loopback, ended with them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from ddnn.adapters.broker import free_port
from tests.parts import need

START_S = 60.0
STOP_S = 20.0
USER = "postgres"  # the server refuses to run as root


def binary(name: str) -> str | None:
    """A program of the server: on PATH, or where Debian puts it, the newest version."""
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name)
    )
    folders = [*map(str, reversed(versions))]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))


def need_postgres() -> None:
    need(
        binary("initdb") and binary("postgres"),
        "the PostgreSQL server is not installed (apt install postgresql)",
    )


class Postgres:
    """One server, which can be killed, started again, and made to stand still."""

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        """Make the files of a new server in a folder that its user may enter.

        Without `fsync` a killed server keeps what the kernel has; only power cuts lose it.
        """
        self._fsync = fsync
        self._data, self._log = folder / "data", folder / "log"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam(USER)
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(folder, user.pw_uid, user.pw_gid)
        self._log.touch()
        subprocess.run(
            [
                *(binary("initdb"), "--pgdata", self._data, "--username", USER),
                *("--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            ],
            **self._as_user,
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=START_S,
        )

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        """Return once it takes connections."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            "fsync": "on" if self._fsync else "off",
        }
        command = [binary("postgres"), "-D", self._data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, **self._as_user, cwd=self._data, stdout=log, stderr=log
            )
        until_s = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it at once, connections and all; a second call does nothing."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """End it and each of its processes without a last word."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """From now on it says nothing, and does not go away either."""
        self._each(psutil.Process.suspend)

    def thaw(self) -> None:
        self._each(psutil.Process.resume)

    def database(self) -> str:
        """The URL of a new, empty database."""
        import psycopg

        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.url, autocommit=True, connect_timeout=5) as link:
            link.execute(f"CREATE DATABASE {name}")
        return self.url.removesuffix("postgres") + name

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _each(self, act: Callable[[psutil.Process], object]) -> list[psutil.Process]:
        """Do it to the server, then to each process that it has; which these were."""
        if self._process is None or self._process.poll() is not None:
            return []
        server = psutil.Process(self._process.pid)
        act(server)
        processes = server.children(recursive=True)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                act(process)
        return [server, *processes]

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        processes = self._each(psutil.Process.suspend)  # none is born any more
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                if number == signal.SIGKILL or process.pid == self._process.pid:
                    process.send_signal(number)
                process.resume()
        self._process.wait(STOP_S)
        # Its memory is free for the next one only once all of them have ended.
        _, alive = psutil.wait_procs(processes, STOP_S)
        if alive:
            raise RuntimeError(f"PostgreSQL did not end: {alive}")


@contextlib.contextmanager
def running_postgres(*, fsync: bool = False) -> Iterator[Postgres]:
    """A server that is running; what is left of it ends with the block."""
    need_postgres()
    # Not below pytest's folders: the server's user may not enter them.
    with tempfile.TemporaryDirectory(prefix="ddnn-postgres-") as folder:
        server = Postgres(Path(folder), fsync=fsync)
        try:
            server.start()
            yield server
        finally:
            server.kill()
