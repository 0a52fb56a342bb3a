"""Redundant students: groups of devices, each of which gives one portion of the features.

Planning needs scipy, and a worker, which imports this package too, does not plan: the functions
that plan are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ddnn.students.filter_graph import build_filter_graph
from ddnn.students.outage import mean_lost_after, p_all_after
from ddnn.students.student_plan import Group, StudentPlan
from ddnn.students.tradeoff import Tradeoff, format_tradeoffs
from ddnn.students.types import StudentType

if TYPE_CHECKING:
    from ddnn.students.pareto import list_tradeoffs
    from ddnn.students.partition import cut_filters, find_communities, normalized_cut
    from ddnn.students.planning import plan

__all__ = [
    "Group",
    "StudentPlan",
    "StudentType",
    "Tradeoff",
    "build_filter_graph",
    "cut_filters",
    "find_communities",
    "format_tradeoffs",
    "list_tradeoffs",
    "mean_lost_after",
    "normalized_cut",
    "p_all_after",
    "plan",
]

_PLANNERS = {
    "cut_filters": "partition",
    "find_communities": "partition",
    "list_tradeoffs": "pareto",
    "normalized_cut": "partition",
    "plan": "planning",
}


def __getattr__(name: str) -> Any:
    """A function that plans, imported at its first use."""
    if name not in _PLANNERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLANNERS[name]}"), name)
