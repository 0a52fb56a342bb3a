"""Coded computation: any s of n workers may vanish and the answer is the same."""

from ddnn.coding.capacity import virtual_stragglers, virtual_workers
from ddnn.coding.code import Certificate, Code
from ddnn.coding.coverage import (
    PAPER_MODELS,
    Cost,
    Load,
    ModelPlan,
    cost_factor,
    coverage,
    coverage_curve,
    devices_needed,
    layer_cost,
)
from ddnn.coding.layers import Linear, SplitLayer, split_layer
from ddnn.coding.section import MatrixSection
from ddnn.coding.supports import lower_bound
from ddnn.errors import InconsistentAnswersError, NotDecodableError

__all__ = [
    "PAPER_MODELS",
    "Certificate",
    "Code",
    "Cost",
    "InconsistentAnswersError",
    "Linear",
    "Load",
    "MatrixSection",
    "ModelPlan",
    "NotDecodableError",
    "SplitLayer",
    "cost_factor",
    "coverage",
    "coverage_curve",
    "devices_needed",
    "layer_cost",
    "lower_bound",
    "split_layer",
    "virtual_stragglers",
    "virtual_workers",
]
