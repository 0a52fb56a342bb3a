"""What a room does with its plans: the part that differs between rooms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddnn.core.plan import Plan
from ddnn.machines.offload import Combiner
from ddnn.machines.replan import Replan

Golden = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Room:
    """What a room does with its plans."""

    make_combiner: Callable[[Plan], Combiner]
    """Raises ConfigError where the plan is none of this room."""
    check: Callable[[Plan, Golden], None]
    """Raises ConfigError unless the plan's parts together give its golden outputs."""
    summarize: Callable[[Plan], dict[str, Any]]
    """What the plan costs and promises, for --json."""
    format_summary: Callable[[Mapping[str, Any]], Sequence[str]]
    """The lines of a summary, for people."""
    replan: Replan | None = None
    """Places the pieces again when workers have joined or left for good; None: they stay."""
