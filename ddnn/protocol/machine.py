"""The Machine interface: an event and the time in, effects out. No I/O, no clock, no thread.

The runtime turns the world into events and effects into the world; the simulation does the same
in virtual time. What a machine decides is the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from ddnn.core.plan import PieceKey, Plan
from ddnn.core.section import Arrays, BundleKey
from ddnn.core.site_time import SiteTime
from ddnn.protocol.messages import Answer, Shortfall
from ddnn.protocol.topics import AnyMessage, Topic

SectionName = str | PieceKey | BundleKey
"""A section of the bundle by its name, one of a plan, or one of a further bundle."""


class Now(NamedTuple):
    """Two clocks: deadlines run on the one that never jumps, stamps show the one on the wall."""

    monotonic_s: float
    wall_s: float


# ------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Received:
    """A message arrived; `wire_bytes` is what it took on the link."""

    topic: Topic
    message: AnyMessage
    wire_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A retained message was removed: what it said is not so any more, or of nobody."""

    topic: Topic


@dataclass(frozen=True, slots=True)
class Captured:
    """A frame of this node's camera: image uint8 [height, width, 3].

    picture: the camera's picture as JPEG, where a recording wants it
    """

    sample: int
    captured_at_s: float
    image: Arrays
    label: int | None = None
    picture: bytes | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """A Compute effect ended; `outputs` is None where the section failed.

    shortfall: what the outputs lack, where they come from others and not all have answered.
    """

    job: Hashable
    outputs: Arrays | None
    shortfall: Shortfall | None = None


@dataclass(frozen=True, slots=True)
class Returned:
    """A Call effect ended. value: what the function returned; error: why it raised, else empty.

    took_s: how long it ran.
    """

    job: Hashable
    value: Any
    took_s: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A Load effect ended; `ok` False where the section's file is missing or wrong."""

    section: SectionName
    ok: bool


@dataclass(frozen=True, slots=True)
class PlanRead:
    """A plan file was read; `plan` is None where there is no plan `id` that can be used."""

    id: str
    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted the connection; everything must be announced again."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The broker is gone."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A Save effect ended: these answers are in the store."""

    answers: Sequence[tuple[str, Answer]]  # with their sites


@dataclass(frozen=True, slots=True)
class Tick:
    """The machine's deadline has come."""


Event = (
    Received
    | Forgotten
    | Captured
    | Computed
    | Returned
    | Loaded
    | PlanRead
    | Connected
    | Disconnected
    | Saved
    | Tick
)

# ------------------------------------------------------------------ effects


@dataclass(frozen=True, slots=True)
class Publish:
    topic: Topic
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class Compute:
    """Run a section; a Computed event with the same job follows.

    job: an opaque token of the machine that asks. A token is of a type of the machine's own, so
    that machines in one process do not take each other's results.
    """

    job: Hashable
    section: SectionName
    inputs: Arrays
    lent: bool = False  # for others: a node's own work never waits for it


@dataclass(frozen=True, slots=True)
class Call:
    """Call a function in a thread for calls; a Returned event with the same job follows.

    Calls with the same `lent` run one after the other, in the order of the effects. job: as in
    Compute; the simulation knows the time of the work by it.
    """

    job: Hashable
    function: Callable[[], Any]
    lent: bool = False  # as in Compute


@dataclass(frozen=True, slots=True)
class Load:
    """Make a section ready; a Loaded event follows."""

    section: SectionName


@dataclass(frozen=True, slots=True)
class Unload:
    """The section is not needed any more."""

    section: SectionName


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Read the plan file again, and take it if it is the plan `id`; a PlanRead event follows."""

    id: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe to further topic filters at once; `subscriptions` names them from now on, too."""

    filters: Sequence[str]


@dataclass(frozen=True, slots=True)
class Keep:
    """Write an answer down before it is published, so that no crash loses it."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Forget:
    """These samples' answers are confirmed: they need not be kept."""

    samples: Sequence[int]


@dataclass(frozen=True, slots=True)
class KeepTime:
    """Write site time down, so that the node does not use earlier times after a restart."""

    time: SiteTime


@dataclass(frozen=True, slots=True)
class Save:
    """Write answers into the database; a Saved event follows once they are in it."""

    answers: Sequence[tuple[str, Answer]]  # with their sites


@dataclass(frozen=True, slots=True)
class UseBundle:
    """From now on the node's status names this bundle."""

    bundle: str


@dataclass(frozen=True, slots=True)
class Log:
    """Write a line into the node's log: `message % arguments`, as in `logging`."""

    level: Literal["debug", "info", "warning", "error"]
    message: str
    arguments: Sequence[object] = ()


Effect = (
    Publish
    | Compute
    | Call
    | Load
    | Unload
    | ReadPlan
    | Subscribe
    | Keep
    | Forget
    | KeepTime
    | Save
    | UseBundle
    | Log
)


def find_earliest(times: Iterable[float | None]) -> float | None:
    """The earliest of some deadlines; None where there is none."""
    earliest: float | None = None
    for time_s in times:  # a loop: every event asks
        if time_s is not None and (earliest is None or time_s < earliest):
            earliest = time_s
    return earliest


class Machine(Protocol):
    """One thread owns a machine; it is called with one event at a time."""

    @property
    def counts(self) -> Mapping[str, int]:
        """What happened, by name: drops above all."""
        ...

    @property
    def gauges(self) -> Mapping[str, float]:
        """What is so now, by name: settings in use, estimates."""
        ...

    def handle(self, event: Event, now: Now) -> list[Effect]: ...

    def deadline_s(self) -> float | None:
        """The monotonic time of the next Tick, or None."""
        ...

    def subscriptions(self) -> list[str]:
        """Topic filters, subscribed on every connect."""
        ...
