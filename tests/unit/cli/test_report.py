"""The report of an evaluation: its figures, and one file that needs nothing besides."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddnn.cli.report import make_page, write_report
from ddnn.errors import ConfigError
from ddnn.exits.intervals import compute_wilson_interval, count_confusions

FIGURES: dict[str, Any] = {
    "bundle": "b1",
    "samples": 40,
    "samples_learned_from": 0,
    "accuracy": {"local": 0.8, "edge": 0.85, "cloud": 0.9, "overall": 0.875},
    "accuracy_interval": (0.739, 0.945),
    "majority": 0.75,
    "classes": ["nobody", "<person>", "dog"],
    "confusion": [[28, 2, 0], [3, 7, 0], [0, 0, 0]],
    "recall": {"nobody": 28 / 30, "<person>": 0.7},
    "recall_interval": {"nobody": (0.787, 0.981), "<person>": (0.397, 0.892)},
    "exit_share": {"local": 0.6, "edge": 0.3, "cloud": 0.1},
    "bytes_per_sample_per_device": 12.5,
    "raw_bytes": 3072,
    "jpeg_bytes": 900.0,
    "device_accuracy": {"cam1": 0.6, "cam2": 0.7},
    "subsets": {"cam1+cam2": 0.875, "cam1": 0.65, "cam2": 0.75},
}


@pytest.mark.parametrize(
    ("hits", "count", "expected"),
    [(8, 10, (0.490, 0.943)), (0, 10, (0.0, 0.278)), (10, 10, (0.722, 1.0)), (0, 0, (0.0, 1.0))],
)
def test_wilsons_interval(hits: int, count: int, expected: tuple[float, float]) -> None:
    assert compute_wilson_interval(hits, count) == pytest.approx(expected, abs=1e-3)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    for share in (0.05, 0.5, 0.9):
        hits = generator.binomial(30, share, 4000)
        inside = [
            low <= share <= high for low, high in (compute_wilson_interval(h, 30) for h in hits)
        ]
        assert 0.92 < np.mean(inside) < 0.98


def test_confusions_are_counted_by_true_class_and_answer() -> None:
    answers, labels = np.array([0, 1, 1, 2], np.int32), np.array([0, 0, 1, 1], np.int32)
    assert count_confusions(answers, labels, 3).tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]


class Checker(HTMLParser):
    """Every element is closed in order; what a page would load is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.loads += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing() -> None:
    page = make_page("yard", FIGURES)
    checker = Checker()
    checker.feed(page)
    assert (checker.open, checker.loads) == ([], [])
    assert "&lt;person&gt;" in page
    assert "<person>" not in page
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for shown in (
        "87.5 % right (73.9 % to 94.5 %)",
        "may be no better than naming always the most frequent class",
        "nobody 30 93.3 % 78.7 % to 98.1 %",
        "person&gt; 10 70.0 % 39.7 % to 89.2 % few samples",
        "dog 0 not measured",
        "local 60.0 % 80.0 %",
        "cam2 75.0 % 70.0 %",
        "The last camera brings +17.5 points",
    ):
        assert shown in text, shown
    assert page.count("<rect") == 9


@pytest.mark.parametrize(
    ("learned", "text"),
    [(0, "40 samples not seen in training;"), (None, "the bundle does not say"), (3, "too good")],
)
def test_the_page_says_whether_training_has_seen_the_samples(
    learned: int | None, text: str
) -> None:
    assert text in make_page("yard", {**FIGURES, "samples_learned_from": learned})


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", "yard", FIGURES)
    assert "yard" in (tmp_path / "r.html").read_text()
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(tmp_path / "nowhere" / "r.html", "yard", FIGURES)
