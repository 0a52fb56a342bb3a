"""The states of a training, as its central node drives it.

    state      signal     next
    GATHERING  GATHERED   PROFILING    enough nodes, and no more came for a while
    PROFILING  PROFILED   HALTING      layers are measured on this node
    HALTING    PLANNED    HOLDING      who holds what is known: the layers are distributed
    HALTING    RESTART    HALTING      no layout fits, or a node knows a later term
    HOLDING    HELD       STARTING     every node has its layers and has built its stage
    HOLDING    RESTART    HALTING      a node was lost, or a copy
    STARTING   STARTED    RUNNING
    STARTING   RESTART    HALTING
    RUNNING    SUSPECT    PROBING      a batch is overdue
    RUNNING    DRAIN      DRAINING     a better layout, or a node wants to leave or to join
    RUNNING    RESTART    HALTING      a node was lost or failed
    RUNNING    END        ENDED
    PROBING    ANSWERED   RUNNING      all are there: a message was lost, and is repeated
    PROBING    RESTART    HALTING
    DRAINING   RESTART    HALTING      no batch is in flight, or a node was lost
    PROFILING  FAIL       FAILED
    HALTING    FAIL       FAILED
    HOLDING    FAIL       FAILED       this node itself fails at its work
    STARTING   FAIL       FAILED
    RUNNING    FAIL       FAILED
    PROBING    FAIL       FAILED
    DRAINING   FAIL       FAILED

Every way from one layout to the next is the same: halt, hold, start, in a new term. A failure on
that way begins it again. Every wait has a deadline.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto


class State(Enum):
    """The states of a training."""

    GATHERING = auto()
    PROFILING = auto()
    HALTING = auto()
    HOLDING = auto()
    STARTING = auto()
    RUNNING = auto()
    PROBING = auto()
    DRAINING = auto()
    ENDED = auto()
    FAILED = auto()


class Signal(Enum):
    """What moves a training from one state to the next."""

    GATHERED = auto()
    PROFILED = auto()
    PLANNED = auto()
    HELD = auto()
    STARTED = auto()
    SUSPECT = auto()
    ANSWERED = auto()
    DRAIN = auto()
    RESTART = auto()
    END = auto()
    FAIL = auto()


WORKING = (State.HOLDING, State.STARTING, State.RUNNING, State.PROBING, State.DRAINING)
TRANSITIONS: Mapping[tuple[State, Signal], State] = {
    (State.GATHERING, Signal.GATHERED): State.PROFILING,
    (State.PROFILING, Signal.PROFILED): State.HALTING,
    (State.HALTING, Signal.PLANNED): State.HOLDING,
    (State.HOLDING, Signal.HELD): State.STARTING,
    (State.STARTING, Signal.STARTED): State.RUNNING,
    (State.RUNNING, Signal.SUSPECT): State.PROBING,
    (State.RUNNING, Signal.DRAIN): State.DRAINING,
    (State.RUNNING, Signal.END): State.ENDED,
    (State.PROBING, Signal.ANSWERED): State.RUNNING,
    **{(state, Signal.RESTART): State.HALTING for state in (State.HALTING, *WORKING)},
    **{(state, Signal.FAIL): State.FAILED for state in (State.PROFILING, State.HALTING, *WORKING)},
}
