"""The entry of redundant students in the table of rooms; see ddnn.rooms."""

from __future__ import annotations

import numpy as np

from ddnn.core.plan import Plan
from ddnn.core.section import is_close
from ddnn.errors import ConfigError
from ddnn.machines.room import Golden, Room
from ddnn.students.combiner import StudentCombiner
from ddnn.students.detail import FEATURES, PORTION, read_detail
from ddnn.students.portions import join_portions
from ddnn.students.replacement import replan
from ddnn.students.state import format_summary, summarize


def check_golden(plan: Plan, golden: Golden) -> None:
    """Raise ConfigError where the golden portions, joined, are not what the tail takes.

    Students and tail would then not compute the network that was measured.
    """
    detail = read_detail(plan)
    fill = np.asarray(detail.fill_values, np.float32)
    try:
        portions = {k: golden[f"{k}/out/{PORTION}"] for k in range(len(plan.pieces))}
        joined = join_portions(portions, detail.filters, fill)
        fits = is_close(joined, golden[f"tail/in/{FEATURES}"])
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"plan {plan.id}: its golden vectors are not complete ({error}); "
            "plan again with `ddnn plan`"
        ) from None
    if not fits:
        raise ConfigError(
            f"plan {plan.id}: its portions are not those that its tail takes; "
            "plan again with `ddnn plan`"
        )


ROOM = Room(StudentCombiner, check_golden, summarize, format_summary, replan)
