"""A training across devices: how far it is, who computes what, and what happened."""

from __future__ import annotations

from math import nan
from typing import Any

import pytest

from cloud_app.views import TrainingView
from ddnn.protocol.train_messages import TrainEntry, TrainPlace
from tests.browser.chromium import Open, text, wait_for
from tests.browser.home import Home
from tests.browser.test_looks import assert_readable
from tests.site_builder import make_training

TRAINING = "#training"
GOING = ".training .going"


def train(home: Home, age_s: float = 0.2, **fields: Any) -> None:
    home.live.trainings = [TrainingView("home", "central", age_s, make_training(**fields))]


def test_how_far_who_and_what_in_words(home: Home, open_page: Open) -> None:
    page = open_page(home.url)
    wait_for(page, "#age.live")
    assert page.locator(TRAINING).is_hidden()
    train(home)
    wait_for(page, f"{GOING}.good", "120 of 400 batches, about 56 s left.")
    said = text(page, TRAINING)
    for fact in (
        "mlp-7 driven by central",
        "Loss of the newest batches 1.250",
        "Right in the same batches 50.0 %",
        "Time per batch 200 ms",
        "Copies at the next device every 10 steps",
        "Whole copy at the central node 20 steps old, every 50",
        "Failures of devices 1",
        "Layouts so far 3",
        "central 0 to 1 180 ms 90 %",
        "trainer1 2 to 6 100 ms 50 %",
        "trainer2 7 – not measured yet – not measured yet",
    ):
        assert fact in said
    page.locator(f"{TRAINING} summary").click()
    entries = [" ".join(li.inner_text().split()) for li in page.locator(".training li").all()]
    assert [entry.split(":")[0] for entry in entries] == ["advance", "restart", "layout"]  # newest
    assert "trainer3 is lost" in entries[1]
    assert page.locator(".training li .dot.bad").count() == 1
    home.live.trainings = []
    page.locator(TRAINING).wait_for(state="hidden")


@pytest.mark.parametrize(
    ("fields", "tone", "words"),
    [
        (
            {"state": "GATHERING", "batches": 0, "term": 0, "places": []},
            "wait",
            "0 of 400 batches: it waits for devices, 2 workers so far.",
        ),
        ({"state": "HOLDING"}, "warn", "120 of 400 batches: it distributes the layers."),
        (
            {"state": "PROBING"},
            "warn",
            "120 of 400 batches: a batch is overdue, it asks who is there.",
        ),
        (
            {"state": "ENDED", "batches": 400, "age_s": 600.0},
            "good",
            "Finished: 400 of 400 batches",
        ),
        ({"age_s": 60.0}, "bad", "No report for 60 s: at 120 of 400 batches."),
    ],
)
def test_each_state_has_its_words(
    home: Home, open_page: Open, fields: dict[str, Any], tone: str, words: str
) -> None:
    train(home, **fields)
    page = open_page(home.url)
    wait_for(page, f"{GOING}.{tone}", words)


@pytest.mark.parametrize(
    ("loss", "words"),
    [(None, "none yet"), (nan, "not finite: it diverges"), (9e28, "9.00e+28"), (0.5, "0.500")],
)
def test_a_training_that_diverges_is_seen(
    home: Home, open_page: Open, loss: float | None, words: str
) -> None:
    train(home, loss=loss, accuracy=None if loss is None else 0.1)
    page = open_page(home.url)
    wait_for(page, TRAINING, f"Loss of the newest batches{words}")


def test_without_the_broker_nothing_is_said_of_the_central_node(
    home: Home, open_page: Open
) -> None:
    train(home, age_s=60.0)
    page = open_page(home.url)
    wait_for(page, f"{GOING}.bad", "No report for 60 s")
    home.live.connect(False)
    wait_for(page, f"{GOING}.wait", "120 of 400 batches, 60 s ago: this page has no connection")


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_all_can_be_read_and_nothing_sticks_out(
    home: Home, open_page: Open, width: int, scheme: str
) -> None:
    hostile = "<img src=x onerror=document.title='owned'>" + "x" * 20
    places = [TrainPlace("a-very-long-name-" * 3 + f"{i}", i, i + 1, 0.1, 0.5) for i in range(12)]
    timeline = [TrainEntry(1000.0 + i, i, "restart", hostile * 4) for i in range(40)]
    train(home, run=hostile, places=places, timeline=timeline)
    page = open_page(home.url, width, scheme, reduced_motion="reduce")
    wait_for(page, TRAINING, hostile)
    page.locator(f"{TRAINING} summary").click()
    assert_readable(page, width)
    assert page.title() == "ddnn"
