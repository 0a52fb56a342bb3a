"""The services of docker-compose.yml as processes of this machine, without containers.

A service's command, environment, health check and configuration files are taken as they stand. A
container's paths become directories here, its host names 127.0.0.1, its ports free ones; nothing
else is changed. Secrets are hard links to the files of `ddnn secrets`, with their owner and mode,
as a container's bind mounts are. Where the tests may do so (as root), a service sees all files
read-only but its own directory, has no capabilities and gains none, as its options want it; and
programs of others' images run as the service's user.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import psycopg
import pytest

from ddnn.adapters.broker import free_port
from tests.deployment.composed import ROOT, compose, dockerfile
from tests.parts import MOSQUITTO

UNSHARE = ["unshare", "--mount", "--propagation", "private"]
CONFINES = (
    os.geteuid() == 0
    and subprocess.run(
        [*UNSHARE, "mount", "-o", "remount,ro,bind", "/"], capture_output=True, timeout=10
    ).returncode
    == 0
)
CONFIGURATION = {
    "mosquitto-edge": "mosquitto",
    "mosquitto-cloud": "mosquitto",
    "prometheus": "cloud_app/observability/prometheus",
}


class Native:
    """A deployment in a directory that every user may enter; close() ends what it started."""

    def __init__(self, directory: Path, secrets: Path, bundle: Path, frames: Path, pg_port: int):
        self.directory, self.secrets, self.bundle, self.frames = directory, secrets, bundle, frames
        self.services = compose()["services"]
        self.ports = {name: free_port() for name in ("mosquitto-edge", "mosquitto-cloud")}
        self.ports |= {"dashboard": free_port(), "prometheus": free_port(), "database": pg_port}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._stages = dockerfile()

    # ------------------------------------------------------------ a service's world

    def home(self, name: str) -> Path:
        """The directory in which a container's paths lie; made as the engine would."""
        home = self.directory / name
        if not home.exists():
            service = self.services[name.split("#")[0]]
            home.mkdir()
            home.chmod(0o755)
            for inside in ("secrets", "tmp", "state", "data"):
                (home / inside).mkdir()
                (home / inside).chmod(0o755 if inside == "secrets" else 0o1777)
            for secret in service.get("secrets", []):
                os.link(self.secrets / secret, home / "secrets" / secret)
            mounted = CONFIGURATION.get(name)
            if mounted:
                shutil.copytree(ROOT / mounted, home / "config")
                for file in (home / "config").iterdir():
                    file.write_text(self.translate(name, file.read_text()))
                    file.chmod(0o644)
        return home

    def translate(self, name: str, text: str) -> str:
        """Replace names that hold in containers by those of this machine: paths, hosts, ports."""
        home = self.directory / name
        port = self.ports.get(name, 0)
        found = {
            "/run/secrets": str(home / "secrets"),
            "/mosquitto/config": str(home / "config"),
            "/mosquitto/data": str(home / "data"),
            "/etc/prometheus/": f"{home}/config/",
            "=/prometheus": f"={home}/data",
            "/tmp": str(home / "tmp"),  # noqa: S108
            "/state": str(home / "state"),
            "/bundle": str(self.bundle),
            "dataset:scenes": f"frames:{self.frames}",
            "listener 1883": f"listener {port} 127.0.0.1",
            "mosquitto-cloud:1883": f"127.0.0.1:{self.ports['mosquitto-cloud']}",
            "@database/": f"@127.0.0.1:{self.ports['database']}/",
            "127.0.0.1:8080": f"127.0.0.1:{self.ports['dashboard']}",
            "dashboard:8080": f"127.0.0.1:{self.ports['dashboard']}",
            "127.0.0.1:9090": f"127.0.0.1:{self.ports['prometheus']}",
            "_interval: 15s": "_interval: 1s",  # a test's patience
            "exec mosquitto ": f"exec {MOSQUITTO} ",
        }
        whole = r"(?![\w-])"  # not the beginning of a longer word
        pattern = "|".join(re.escape(k) + (whole if k[-1].isalnum() else "") for k in found)
        return re.sub(pattern, lambda match: found[match[0]], text)

    def environment(self, name: str) -> dict[str, str]:
        """What the image and the service set, and what this machine needs to run it."""
        service = self.services[name.split("#")[0]]
        given: dict[str, str] = {}
        given["HOSTNAME"] = sha256(name.encode()).hexdigest()[:12]  # as an engine does
        if "build" in service:
            image = dict(self._stages["base"])["ENV"]
            given |= dict(re.findall(r"(DDNN_\w+|PYTHON\w+)=(\S+)", image))
        given |= {key: str(value) for key, value in (service.get("environment") or {}).items()}
        broker = given.get("DDNN_BROKER_HOST")
        if broker in self.ports:
            given |= {"DDNN_BROKER_HOST": "127.0.0.1", "DDNN_BROKER_PORT": str(self.ports[broker])}
        if "DDNN_HTTP_PORT" in given:
            given["DDNN_HTTP_PORT"] = str(self.ports["dashboard"])
        machine = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self.directory / name / "tmp"),
        }
        # A clone of the repository below /tmp is none of the container's paths.
        return {key: self.translate(name, value) for key, value in given.items()} | machine

    def command(self, name: str) -> list[str]:
        service = self.services[name.split("#")[0]]
        entrypoint = service.get("entrypoint")
        if name == "prometheus":  # the image's own
            entrypoint = ["prometheus", f"--web.listen-address=127.0.0.1:{self.ports[name]}"]
        elif entrypoint is None:
            stage = dict(self._stages[service["build"]["target"]])
            entrypoint = json.loads(stage["ENTRYPOINT"])
        return [self.translate(name, word) for word in [*entrypoint, *service.get("command", [])]]

    def _confine(self, name: str, command: list[str]) -> list[str]:
        """The command with a read-only root, without capabilities, as the service's user."""
        if not CONFINES:
            return command
        # Our programs stay root: the interpreter of the tests may lie in root's own directory.
        user = self.services[name]["user"] if name in CONFIGURATION else "0:0"
        uid, gid = user.split(":")
        script = (
            'mount --bind "$0" "$0" && mount -o remount,ro,bind / && cd "$0/state" && exec '
            "setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "
            f'--reuid={uid} --regid={gid} --clear-groups "$@"'
        )
        return [*UNSHARE, "/bin/sh", "-c", script, str(self.directory / name), *command]

    # ------------------------------------------------------------------- processes

    def start(self, name: str) -> None:
        """Start a service; `cloud#2` is a second container of `cloud`."""
        home = self.home(name)
        with (home / "log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                self._confine(name, self.command(name)),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment(name),
                cwd=home / "state",
            )

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.kill()
        process.wait(10)

    def stop(self, name: str, timeout_s: float = 10.0) -> int:
        """SIGTERM, as the engine does; the exit code."""
        process = self.running.pop(name)
        process.terminate()
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            pytest.fail(f"{name} did not end within {timeout_s} s of SIGTERM: {self.log(name)}")

    def check_health(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run the service's health check once."""
        check = self.services[name.split("#")[0]]["healthcheck"]
        kind, *words = check["test"]
        words = [self.translate(name, word) for word in words]
        command = ["/bin/sh", "-c", *words] if kind == "CMD-SHELL" else words
        if name.startswith("mosquitto"):
            command += ["-h", "127.0.0.1", "-p", str(self.ports[name])]
        if name == "database":
            command += ["-p", str(self.ports[name])]
            self.home(name)
        try:
            return subprocess.run(
                self._confine(name, command),
                capture_output=True,
                text=True,
                env=self.environment(name),
                timeout=float(check["timeout"].removesuffix("s")),
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, -1, "", "timed out")

    def log(self, name: str) -> str:
        return (self.directory / name / "log").read_text()[-3000:]

    def check(self) -> None:
        """Fail with the end of the log of a service that ended unasked."""
        for name, process in self.running.items():
            if process.poll() is not None:
                pytest.fail(f"{name} ended with {process.returncode}: {self.log(name)}")

    def wait(self, true: Callable[[], object], timeout_s: float, what: str) -> None:
        until_s = time.monotonic() + timeout_s
        while not true():
            self.check()
            if time.monotonic() > until_s:
                logs = "\n".join(f"--- {name}\n{self.log(name)[-800:]}" for name in self.running)
                pytest.fail(f"{what}: not within {timeout_s} s\n{logs}")
            time.sleep(0.1)

    def wait_until_healthy(self, name: str, timeout_s: float = 20.0) -> None:
        self.wait(lambda: self.check_health(name).returncode == 0, timeout_s, f"{name} healthy")

    def close(self) -> None:
        for process in reversed(self.running.values()):
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(8)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that other users may enter, too."""
    with tempfile.TemporaryDirectory(prefix="ddnn-deployment-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


def make_database(url: str, password: str) -> int:
    """User, database and password rule as the container's image makes them; the server's port."""
    with psycopg.connect(url, autocommit=True) as link:
        link.execute(f"CREATE ROLE ddnn LOGIN PASSWORD '{password}'")
        link.execute("CREATE DATABASE ddnn OWNER ddnn")
        (rules,) = link.execute("SHOW hba_file").fetchone() or ("",)
        rule = "host all all 127.0.0.1/32 scram-sha-256"
        link.execute(f"COPY (VALUES ('{rule}')) TO '{rules}'")
        link.execute("SELECT pg_reload_conf()")
        return link.info.port
