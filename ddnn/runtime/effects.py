"""The interpreter of effects: a host performs the effects that a machine returns.

A machine runs in a host: a node's loop with sockets, threads and files, or a node of the simulation
in virtual time. Only `perform` matches effects, so that both hosts perform the same ones: a new
effect is one row here and one method of `Host`, and mypy and the tests refuse a host without it.
"""

from __future__ import annotations

from typing import Protocol, assert_never

from ddnn.protocol.machine import (
    Call,
    Compute,
    Effect,
    Forget,
    Keep,
    KeepTime,
    Load,
    Log,
    Publish,
    ReadPlan,
    Save,
    Subscribe,
    Unload,
    UseBundle,
)


class Host(Protocol):
    """Performs the effects of one machine; the events that follow go back to the machine."""

    def publish(self, effect: Publish) -> None: ...
    def compute(self, effect: Compute) -> None: ...
    def call(self, effect: Call) -> None: ...
    def load(self, effect: Load) -> None: ...
    def unload(self, effect: Unload) -> None: ...
    def read_plan(self, effect: ReadPlan) -> None: ...
    def subscribe(self, effect: Subscribe) -> None: ...
    def keep(self, effect: Keep) -> None: ...
    def forget(self, effect: Forget) -> None: ...
    def keep_time(self, effect: KeepTime) -> None: ...
    def save(self, effect: Save) -> None: ...
    def use_bundle(self, effect: UseBundle) -> None: ...
    def log(self, effect: Log) -> None: ...


def perform(effect: Effect, host: Host) -> None:
    """Let the host perform one effect."""
    match effect:
        case Publish():
            host.publish(effect)
        case Compute():
            host.compute(effect)
        case Call():
            host.call(effect)
        case Load():
            host.load(effect)
        case Unload():
            host.unload(effect)
        case ReadPlan():
            host.read_plan(effect)
        case Subscribe():
            host.subscribe(effect)
        case Keep():
            host.keep(effect)
        case Forget():
            host.forget(effect)
        case KeepTime():
            host.keep_time(effect)
        case Save():
            host.save(effect)
        case UseBundle():
            host.use_bundle(effect)
        case Log():
            host.log(effect)
        case _:
            assert_never(effect)
