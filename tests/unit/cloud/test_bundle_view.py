"""The expected accuracy: measured for exactly these devices and thresholds, else none."""

from __future__ import annotations

import pytest

from tests.site_builder import BUNDLE

ALL = ("cam1", "cam2", "cam3")


@pytest.mark.parametrize(
    ("members", "thresholds", "accuracy"),
    [
        (ALL, None, 0.97),
        (("cam1",), None, 0.7),
        (("cam2",), None, None),
        (ALL, {"local": 0.3, "edge": 0.5}, 0.97),  # the bundle's own
        (("cam1",), {"local": 0.3, "edge": 0.5}, 0.7),
        (ALL, {"local": 0.5, "edge": 0.5}, 0.93),  # a row of the sweep, which everyone's is
        (("cam1",), {"local": 0.5, "edge": 0.5}, None),
        (ALL, {"local": 0.4, "edge": 0.5}, None),  # between the rows nothing was measured
    ],
)
def test_only_measured_accuracies_are_expected(members, thresholds, accuracy) -> None:
    assert BUNDLE.find_accuracy(members, thresholds) == accuracy
