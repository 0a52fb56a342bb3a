"""The systemd unit of device_app: accepted by systemd, and its command does what it promises.

The command runs here as systemd would start it: with a notification socket, the credentials'
directory, and without the right to make memory executable.
"""

from __future__ import annotations

import ctypes
import os
import queue
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ddnn.adapters.broker import free_port, wait_until_listening
from tests.parts import MOSQUITTO, need, need_mosquitto

APP = Path(__file__).parents[2] / "device_app"
UNIT = APP / "ddnn-device.service"
PYTHON = "/opt/ddnn/bin/python"
CREDENTIALS = "/run/credentials/ddnn-device.service"
EXPOSURE_LIMIT = 2.0
IN_TIME_S = 20.0
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1  # Linux 6.3

# device_app whose section, once the file exists, fails or never returns. The time after which that
# counts is shortened: it is tested here that it counts.
FAULTY = """
import runpy, sys, time
from pathlib import Path
import ddnn.runtime.service as service
from ddnn.adapters.litert import LiteRtSection
fault, file = sys.argv[1], Path(sys.argv[2])
call = LiteRtSection.__call__
def faulty(self, inputs):
    if file.exists():
        if fault == "stuck":
            time.sleep(3600)
        raise RuntimeError("the section is broken")
    return call(self, inputs)
LiteRtSection.__call__ = faulty
service.INFERRED_WITHIN_S = 1.5
sys.argv[1:] = sys.argv[3:]
runpy.run_module("device_app", run_name="__main__")
"""


def unit(key: str) -> list[str]:
    """The values of a key of the unit, in their order."""
    text = re.sub(r"\\\n\s*", " ", UNIT.read_text())
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    tool = shutil.which("systemd-analyze")
    need(tool, "systemd-analyze is not installed (apt install systemd)")
    return subprocess.run(
        [str(tool), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


# ------------------------------------------------------------------- the file


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """Unknown keys, wrong values and unknown system calls are reported line by line."""
    copy = tmp_path / UNIT.name  # with a program that is there
    copy.write_text(UNIT.read_text().replace(PYTHON, sys.executable))
    done = analyze("verify", "--man=no", str(copy))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_service_may_do_little() -> None:
    done = analyze("security", "--offline=true", "--no-pager", str(UNIT))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE_LIMIT, done.stdout


def test_32_bit_is_refused_with_a_sentence(tmp_path: Path) -> None:
    """Also where the kernel has 64 bits and the programs have not, as on many a Raspberry Pi."""
    (tmp_path / "getconf").write_text("#!/bin/sh\necho 32\n")
    (tmp_path / "getconf").chmod(0o755)
    done = subprocess.run(
        [APP / "install.sh"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert "32-bit" in done.stderr
    assert "64-bit image" in done.stderr


# ----------------------------------------------------------------- the command


class Broker:
    """Mosquitto with a password, started when it is asked for."""

    def __init__(self, directory: Path, user: str, password: str) -> None:
        need_mosquitto()
        self.port = free_port()
        self._config = directory / "mosquitto.conf"
        secrets = directory / "passwords"
        secrets.write_text(f"{user}:{password}\n")
        tool = shutil.which("mosquitto_passwd")
        subprocess.run([str(tool), "-U", str(secrets)], check=True, timeout=20)
        running_as = "user root\n" if os.geteuid() == 0 else ""
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\npassword_file {secrets}\n{running_as}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(MOSQUITTO), "-c", str(self._config)], stderr=subprocess.DEVNULL
        )
        wait_until_listening(self.port)

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)


class Service:
    """The unit's command as a process, and what it says to its manager."""

    def __init__(self, directory: Path, port: int, bundle: Path, frames: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(directory / "notify"))
        self.heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        credentials = directory / "credentials"
        credentials.mkdir()
        (name,) = (value.partition(":")[0] for value in unit("LoadCredential"))
        (credentials / f"{name}_device.toml").write_text(
            configuration(credentials, port, bundle, frames)
        )
        (credentials / f"{name}_broker-password").write_text("correct horse\n")
        (exec_start,) = unit("ExecStart")
        for there, here in (
            (PYTHON, sys.executable),
            ("%d", str(credentials)),
            ("%S", str(directory)),
        ):
            exec_start = exec_start.replace(there, here)
        self.command = shlex.split(exec_start)
        (watchdog_s,), variables = unit("WatchdogSec"), unit("Environment")
        self._environ = {
            "PATH": os.environ["PATH"],
            "NOTIFY_SOCKET": str(directory / "notify"),
            "WATCHDOG_USEC": str(int(watchdog_s) * 1_000_000),
            **dict(variable.split("=", 1) for variable in variables),
        }
        self._log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def _listen(self) -> None:
        while True:
            try:
                self.heard.put(self._socket.recv(4096).decode())
            except OSError:
                return

    def start(self, command: list[str] | None = None) -> None:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command or self.command,
                env=self._environ,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=deny_new_executable_memory,
            )

    def next(self, timeout_s: float = IN_TIME_S) -> str:
        try:
            return self.heard.get(timeout=timeout_s)
        except queue.Empty:
            pytest.fail(f"nothing is heard: {self._log.read_text()}")

    def wait_for(self, word: str) -> list[str]:
        """What is heard until `word`, which is the last."""
        heard: list[str] = []
        until_s = time.monotonic() + IN_TIME_S
        while word not in heard:
            heard.append(self.next(max(0.0, until_s - time.monotonic())))
        return heard

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def deny_new_executable_memory() -> None:
    """MemoryDenyWriteExecute=, by the kernel instead of a filter; without effect before 6.3."""
    ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)


def configuration(credentials: Path, port: int, bundle: Path, frames: Path) -> str:
    """device.toml as it is shipped, with a password and this test's values."""
    shipped = (APP / "device.toml").read_text()
    text = re.sub(r"^# (?=(node|site|broker_\w+|insecure) = )", "", shipped, flags=re.MULTILINE)
    text = re.sub(r"^site_file = .*\n", "", text, flags=re.MULTILINE)
    text = text.replace(CREDENTIALS, str(credentials))
    for key, value in (
        ("bundle", f'"{bundle}"'),
        ("source", f'"frames:{frames}"'),
        ("broker_host", f'"127.0.0.1"\nbroker_port = {port}'),
    ):
        text, count = re.subn(rf'^{key} = "[^"]*"', f"{key} = {value}", text, flags=re.MULTILINE)
        assert count == 1, key
    return text


@pytest.fixture
def broker_and_service(tmp_path: Path, scenes_bundle: Path) -> Iterator[tuple[Broker, Service]]:
    """A broker and a service, neither of them running yet."""
    frames = tmp_path / "frames"
    frames.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (10, 6, 32, 32, 3), np.uint8)
    np.save(frames / "images.npy", images)
    np.save(frames / "view_labels.npy", np.zeros((10, 6), np.int32))
    broker = Broker(tmp_path, "device", "correct horse")
    service = Service(tmp_path, broker.port, scenes_bundle, frames)
    yield broker, service
    service.close()
    broker.close()


def test_it_is_ready_once_it_is_connected_and_has_inferred(
    broker_and_service: tuple[Broker, Service],
) -> None:
    """Without a broker it is not; as it works, it asks for more time. SIGTERM ends it cleanly."""
    broker, service = broker_and_service
    service.start()
    assert [service.next() for _ in range(4)] == ["EXTEND_TIMEOUT_USEC=30000000"] * 4
    broker.start()
    before = service.wait_for("READY=1")[:-1]
    assert set(before) <= {"EXTEND_TIMEOUT_USEC=30000000"}
    assert [service.next() for _ in range(4)] == ["WATCHDOG=1"] * 4
    assert service.process is not None
    service.process.send_signal(signal.SIGTERM)
    assert set(service.wait_for("STOPPING=1")[:-1]) <= {"WATCHDOG=1"}
    (limit_s,) = unit("TimeoutStopSec")
    assert service.process.wait(float(limit_s)) == 0
    assert service.heard.empty()


@pytest.mark.parametrize("fault", ["fails", "stuck"])
def test_the_watchdog_hungers_when_inferences_end(
    broker_and_service: tuple[Broker, Service], tmp_path: Path, fault: str
) -> None:
    """The process lives, and is connected; systemd ends it all the same."""
    broker, service = broker_and_service
    broker.start()
    file = tmp_path / "fault"
    (
        python,
        isolated,
        *_,
    ) = service.command
    arguments = service.command[service.command.index("device_app") + 1 :]
    service.start([python, isolated, "-c", FAULTY, fault, str(file), *arguments])
    service.wait_for("READY=1")
    service.wait_for("WATCHDOG=1")
    file.touch()
    quiet_s = 2.0  # it is fed several times in so long
    assert wait_until_quiet(service.heard, quiet_s, IN_TIME_S)
    assert service.process is not None
    assert service.process.poll() is None


def wait_until_quiet(heard: queue.SimpleQueue[str], quiet_s: float, limit_s: float) -> bool:
    """Whether nothing was heard for `quiet_s` within the limit."""
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        try:
            heard.get(timeout=quiet_s)
        except queue.Empty:
            return True
    return False
