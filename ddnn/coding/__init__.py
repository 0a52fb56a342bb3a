"""Coded computation: any s of n workers may fail and the answer is the same."""

from ddnn.coding.capacity import assign_virtual_workers, count_virtual_stragglers
from ddnn.coding.certification import Certificate, certify
from ddnn.coding.code import Code
from ddnn.coding.constructions import (
    make_dense_gaussian,
    make_low_weight,
    make_low_weight_product,
    make_mds,
    make_parity,
    make_polynomial,
    make_replication,
    make_uncoded,
    search_code,
    search_product_code,
)
from ddnn.coding.coverage import (
    PAPER_MODELS,
    Cost,
    Load,
    ModelPlan,
    compute_cost,
    compute_cost_factor,
    compute_coverage,
    compute_coverage_curve,
    count_devices,
)
from ddnn.coding.layers import Linear, SplitLayer, split_layer
from ddnn.coding.section import MatrixSection
from ddnn.coding.supports import compute_lower_bound
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
    "assign_virtual_workers",
    "certify",
    "compute_cost",
    "compute_cost_factor",
    "compute_coverage",
    "compute_coverage_curve",
    "compute_lower_bound",
    "count_devices",
    "count_virtual_stragglers",
    "make_dense_gaussian",
    "make_low_weight",
    "make_low_weight_product",
    "make_mds",
    "make_parity",
    "make_polynomial",
    "make_replication",
    "make_uncoded",
    "search_code",
    "search_product_code",
    "split_layer",
]
