"""Redundant students: groups of devices, each of which gives one portion of the features."""

from ddnn.students.filter_graph import build_filter_graph
from ddnn.students.outage import mean_lost_after, p_all_after
from ddnn.students.pareto import Tradeoff, format_tradeoffs, list_tradeoffs
from ddnn.students.partition import cut_filters, find_communities, normalized_cut
from ddnn.students.planning import plan
from ddnn.students.student_plan import Group, StudentPlan
from ddnn.students.types import StudentType

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
