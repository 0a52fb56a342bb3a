"""The step of a state machine whose transitions stand in a table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from ddnn.errors import LocalProtocolError

State = TypeVar("State", bound=Enum)
Signal = TypeVar("Signal", bound=Enum)


def advance(
    transitions: Mapping[tuple[State, Signal], State],
    state: State,
    signal: Signal,
    subject: str,
) -> State:
    """The state of `subject` after the signal.

    LocalProtocolError where the table has no such transition.
    """
    try:
        return transitions[state, signal]
    except KeyError:
        raise LocalProtocolError(
            f"{subject}: {signal.name} is not possible in state {state.name}"
        ) from None
