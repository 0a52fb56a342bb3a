"""The cloud's database: exactly one answer per site and sample, whatever the order of arrival."""

from cloud_app.store.records import (
    Bucket,
    Change,
    ExitSummary,
    Histogram,
    NodeEvent,
    NotFound,
    Record,
    Replay,
    Summary,
)
from cloud_app.store.schema import LATENCY_BOUNDS_S
from cloud_app.store.store import LATENCY_WINDOW, Store

__all__ = [
    "LATENCY_BOUNDS_S",
    "LATENCY_WINDOW",
    "Bucket",
    "Change",
    "ExitSummary",
    "Histogram",
    "NodeEvent",
    "NotFound",
    "Record",
    "Replay",
    "Store",
    "Summary",
]
