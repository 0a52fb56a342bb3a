"""Runs a machine against a broker, in the thread of a command."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ddnn.adapters.joined import open_guard
from ddnn.cli.observer import ObserverSettings, limit_connecting, start_observer
from ddnn.errors import LinkError, RemoteProtocolError
from ddnn.machines.composite import CompositeMachine
from ddnn.protocol.machine import (
    Connected,
    Disconnected,
    Effect,
    Event,
    Forgotten,
    Machine,
    Now,
    Received,
    Tick,
)
from ddnn.runtime.effects import perform
from ddnn.runtime.host import NodeHost, Resources
from ddnn.runtime.packets import unpack
from ddnn.runtime.transport import Arrived, LinkDown, LinkEvent, LinkUp

STEP_S = 0.2


class MachineDriver:
    """A connection with a node's rights under another client id, and a machine."""

    def __init__(self, settings: ObserverSettings, machine: Machine) -> None:
        self._settings, self._machine = settings, machine
        self.reason = ""  # why there is no connection
        self._tries = 0
        self._is_connected = False
        self._inbox: deque[Event] = deque()
        self._transport = start_observer(settings, self._take)
        self._host = NodeHost(self._transport, Resources(), self._deliver, open_guard(settings))

    # ------------------------------------------------------------------- the user's

    def connect(self) -> None:
        """Wait for the connection; LinkError where the broker cannot be reached."""
        tries, deadline_s = limit_connecting(self._settings)
        while not self._is_connected:
            if self._tries >= tries or time.monotonic() > deadline_s:
                raise LinkError(
                    f"{self.reason or f'{self._settings.broker} does not answer'}; "
                    "`ddnn doctor` with the same options names the remedy"
                )
            self.step()

    def add(self, machine: Machine) -> None:
        """Run another machine beside the present one."""
        self._machine = CompositeMachine(self._machine, machine)
        self._transport.subscribe(machine.subscriptions())

    def perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            perform(effect, self._host)

    def run(self, is_over: Callable[[], bool], show: Callable[[], None], for_s: float) -> None:
        """Handle what comes until `is_over`, at most for so long; call `show` in between."""
        deadline_s = time.monotonic() + for_s
        while not is_over() and time.monotonic() < deadline_s:
            self.step()
            show()

    def step(self) -> None:
        """Handle what has come, and wait a little for more."""
        self._transport.wait(0.0 if self._inbox else self._find_wait_s())
        while self._inbox:
            self._handle(self._inbox.popleft())
        if self._find_wait_s() <= 0:
            self._handle(Tick())

    def close(self) -> None:
        self._transport.close()
        self._host.sections.close()

    # --------------------------------------------------------------------- events

    def _find_wait_s(self) -> float:
        due_s = self._machine.deadline_s()
        if due_s is None:
            return STEP_S
        return min(max(0.0, due_s - time.monotonic()), STEP_S)

    def _deliver(self, event: Any) -> None:
        """From any thread: what a call returned."""
        self._inbox.append(event)
        self._transport.wake()

    def _take(self, event: LinkEvent) -> None:
        match event:
            case LinkUp():
                self._transport.subscribe(self._machine.subscriptions())
                self._is_connected = True
                self._inbox.append(Connected())
            case LinkDown(reason):
                self.reason = reason
                self._tries += 1
                self._is_connected = False
                self._inbox.append(Disconnected())
            case Arrived(topic, payload):
                try:
                    received = unpack(topic, payload)
                except RemoteProtocolError:
                    return
                self._note(received)
                self._inbox.append(received)

    def _note(self, received: Received | Forgotten) -> None:
        """Note what arrived, before the machine takes it."""

    def _handle(self, event: Event) -> None:
        if isinstance(event, Received) and event.topic.site != self._settings.site:
            return
        self.perform(self._machine.handle(event, Now(time.monotonic(), time.time())))
