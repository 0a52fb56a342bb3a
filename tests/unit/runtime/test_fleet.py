"""A fleet ends what it started, all of it, and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ddnn.adapters.command import read_config
from ddnn.errors import ConfigError, DdnnError
from ddnn.local_site.broker_process import OWN_BROKER
from ddnn.runtime import fleet as module
from ddnn.runtime.fleet import Fleet
from ddnn.runtime.settings import NodeSettings

SLEEP = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-S",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(60)",
]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path / "logs")
    yield fleet
    fleet.close()


def wait_until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until_s, "not in time"
        time.sleep(0.01)


def start(fleet: Fleet, node: str, command: list[str]) -> psutil.Process:
    fleet.start(node, command)
    wait_until(lambda: fleet.read_last_line(node) == "up")
    return psutil.Process(fleet.find_pid(node))


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_it_ends_only_its_own(fleet: Fleet) -> None:
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE) as other:
        mine = [start(fleet, name, SLEEP) for name in ("broker", "edge", "cam1")]
        fleet.close()
        assert all(is_gone(process) for process in mine)
        assert other.poll() is None
        other.kill()
    assert fleet.nodes == ["broker", "edge", "cam1"]
    assert not any(fleet.is_alive(node) for node in fleet.nodes)


def test_a_stopped_process_ends_by_sigterm_too(fleet: Fleet) -> None:
    process = start(fleet, "cam1", SLEEP)
    fleet.send_signal("cam1", signal.SIGSTOP)
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
    fleet.close()
    assert is_gone(process)
    assert fleet._running["cam1"].returncode == -signal.SIGTERM  # it was not waited for and killed


def test_who_does_not_hear_sigterm_is_killed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TERMINATE_S", 0.2)
    stubborn, willing = start(fleet, "edge", STUBBORN), start(fleet, "cam1", SLEEP)
    fleet.close()
    assert is_gone(stubborn)
    assert is_gone(willing)


def test_the_first_started_ends_last(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker must still be there when the nodes say their farewells, all at the same time."""
    monkeypatch.setattr(module, "TERMINATE_S", 60.0)
    order = tmp_path / "order"
    order.touch()
    script = (
        "import signal, sys, time\n"
        "def end(*_):\n"
        "    name, after, order = sys.argv[1:]\n"
        "    while after not in open(order).read(): time.sleep(0.01)\n"
        "    open(order, 'a').write(name)\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(60)"
    )
    for name, after in (("b", ""), ("c", "d"), ("d", "")):
        start(fleet, name, [sys.executable, "-S", "-c", script, name, after, str(order)])
    fleet.close()
    assert order.read_text() == "dcb"


def test_an_interrupt_while_closing_leaves_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An impatient second Ctrl-C."""
    processes = [start(fleet, name, STUBBORN) for name in ("edge", "cam1")]
    waits = 0
    wait = subprocess.Popen.wait

    def interrupt_wait(self: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        nonlocal waits
        waits += 1
        if waits == 1:
            raise KeyboardInterrupt
        return wait(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupt_wait)
    with pytest.raises(KeyboardInterrupt):
        fleet.close()
    assert all(is_gone(process) for process in processes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_process_is_born_does_not_leave_it_behind(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    born: list[psutil.Process] = []

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options)  # type: ignore[call-overload]
            born.append(psutil.Process(self.pid))
            signal.raise_signal(number)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", Popen)
            with pytest.raises(KeyboardInterrupt):
                fleet.start("cam1", SLEEP)
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    assert not is_gone(born[0])
    fleet.close()
    assert is_gone(born[0])


def test_killed_and_started_again(fleet: Fleet) -> None:
    first = start(fleet, "cam1", SLEEP)
    with pytest.raises(ConfigError, match="cam1 is running already"):
        fleet.start("cam1")
    fleet.send_signal("cam1", signal.SIGKILL)
    assert is_gone(first)
    assert not fleet.is_alive("cam1")
    fleet.start("cam1")
    assert fleet.is_alive("cam1")
    assert fleet.find_pid("cam1") != first.pid


def test_who_ended_by_itself_is_named_with_its_last_words(fleet: Fleet) -> None:
    code = "import sys; print('one', flush=True); sys.exit('no bundle')"
    fleet.start("edge", [sys.executable, "-S", "-c", code])
    wait_until(lambda: not fleet.is_alive("edge"))
    with pytest.raises(DdnnError, match="edge ended: no bundle"):
        fleet.require_alive("edge")
    assert fleet.read_last_line("never") == "no log"


def test_variables_are_added_to_the_environment(fleet: Fleet) -> None:
    code = "import os; print(os.environ['DDNN_X'], 'PATH' in os.environ)"
    fleet.start("cam1", [sys.executable, "-S", "-c", code], {"DDNN_X": "7"})
    wait_until(lambda: fleet.read_last_line("cam1") == "7 True")


def test_a_local_site_has_its_own_broker_whatever_the_users_variables_name() -> None:
    """Its nodes are started with the user's environment."""
    environ = {
        "DDNN_BROKER_HOST": "gateway.lan",
        "DDNN_SITE_FILE": "cam1.site",
        "DDNN_SITE_PASSPHRASE_FILE": "passphrase",
        "DDNN_BROKER_USER": "me",
        "DDNN_BROKER_PASSWORD_FILE": "password",
    }
    flags = {"node": "cam1", "broker_port": 2222}
    settings = read_config(NodeSettings, flags, {**environ, **OWN_BROKER})
    assert [str(broker) for broker in settings.brokers] == ["127.0.0.1:2222"]
    assert settings == read_config(NodeSettings, flags, {})
