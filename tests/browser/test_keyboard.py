"""Everything can be done without a pointer, and what came of it is said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddnn.errors import LinkError
from tests.browser.chromium import Open, Problems, text, wait_for
from tests.browser.home import Home, wait_for_states

if TYPE_CHECKING:
    import pytest
    from playwright.sync_api import Page

    from cloud_app.store import Record

STOPS = 80


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until that has the focus, which then is to be seen."""
    page.evaluate("document.activeElement.blur()")
    for _ in range(STOPS):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            outline = "getComputedStyle(document.activeElement).outline"
            assert re.search(r"solid [1-9]", page.evaluate(outline)), selector
            return
    raise AssertionError(f"{selector} is not reached by Tab")


@contextmanager
def held_clock(page: Page) -> Iterator[None]:
    """The page's timers stand still, so that a slow machine does not part two key presses."""
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 30"))
    yield
    page.clock.resume()


def test_the_first_stop_skips_to_the_numbers(home: Home, open_page: Open) -> None:
    page = open_page(home.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"


def test_label_a_sample(home: Home, open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    keep = home.store.set_label

    def label(site: str, sample: int, label: int | None, *by: Any) -> Record:
        given.append(label)
        return keep(site, sample, label, *by)

    monkeypatch.setattr(home.store, "set_label", label)
    home.answer(range(1, 4), truth=None)
    page = open_page(home.url)
    select = "select[data-sample='2']"
    wait_for(page, "#headline", "no sample is labelled yet")
    tab_to(page, select)
    home.answer(range(4, 9), truth=None)  # newer ones do not take the sample away
    with held_clock(page):
        page.keyboard.press("ArrowDown")
        page.clock.run_for(150)  # as fingers do
        page.keyboard.press("ArrowDown")
    wait_for(page, "#said", "Sample 2: bus, saved.")
    assert page.evaluate("document.activeElement.dataset.sample") == "2"
    [record] = home.store.list_answers("home", 2, 2, 1)
    assert record.labelled == 1
    row = "#sample-rows li[data-key='home/2']"
    assert "✓ right" in text(page, row)
    wait_for(page, "#headline", "of 1 known, 1 by hand")
    with held_clock(page):
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowUp")
    wait_for(page, "#said", "Sample 2: not labelled, saved.")
    [record] = home.store.list_answers("home", 2, 2, 1)
    assert record.labelled is None
    assert given == [1, None]  # the car passed over on the way was never meant


def test_a_label_that_cannot_be_saved(
    home: Home, open_page: Open, problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.answer(range(3), truth=None)

    def fail(*_: object) -> None:
        raise LinkError("the database is locked; try again")

    monkeypatch.setattr(home.store, "set_label", fail)
    page = open_page(home.url)
    tab_to(page, "select[data-sample='2']")
    page.keyboard.press("ArrowDown")
    wait_for(page, "#said.bad", "Sample 2: the label was not saved. the database is locked")
    assert "not saved: the database is locked" in text(page, "li[data-key='home/2'] .status")
    tab_to(page, "#hold")  # left, the field shows what is stored
    page.wait_for_function("document.querySelector('select[data-sample=\"2\"]').value === ''")
    problems.expect("503.*labels")


def test_look_at_a_threshold_apply_it_and_take_it_back(home: Home, open_page: Open) -> None:
    exit_trace = [("local", 1, 0.2)]
    home.answer(range(4), exit_trace=exit_trace)
    home.answer(range(4, 8), exit_trace=[("local", 1, 0.6), ("edge", 1, 0.1)], exit="edge")
    page = open_page(home.url)
    wait_for(page, "#threshold-state", "In use: local 0.30, edge 0.50.")
    wait_for(page, "#comparison", "local 50 %, edge 50 %")
    assert page.locator("#apply").get_attribute("aria-disabled") == "true"
    tab_to(page, "#threshold-local")
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    assert text(page, ".slider.local output") == "0.10"
    recorded = "#comparison tbody[data-key=recorded]"
    wait_for(page, recorded, "with these")
    wait_for(page, recorded, re.compile(r"with these.*unknown 50\s%"))
    assert "now" in text(page, "#comparison tbody[data-key=sweep]")
    assert "with these" in text(page, "#comparison tbody[data-key=sweep]")
    assert home.live.sent == []  # looked at, not applied
    tab_to(page, "#apply")
    page.keyboard.press("Enter")
    wait_for(page, "#said", "Thresholds sent to the edge: local 0.10, edge 0.50.")
    assert home.live.sent == [("home", {"local": 0.1, "edge": 0.5}, 1)]
    wait_for(page, "#threshold-state", "In use: local 0.10, edge 0.50.")
    wait_for(page, "#changes", "applied: local 0.10, edge 0.50")
    assert "before: local 0.30, edge 0.50; by 127.0.0.1" in text(page, "#changes")
    assert page.evaluate("document.activeElement.id") == "apply"
    page.keyboard.press("Enter")  # nothing to apply any more
    tab_to(page, "#revert")
    page.keyboard.press("Space")
    wait_for(page, "#threshold-state", "In use: local 0.30, edge 0.50.")
    wait_for(page, "#changes", "reverted: local 0.30, edge 0.50")
    assert [revision for _, _, revision in home.live.sent] == [1, 2]


def test_sliders_can_be_put_back(home: Home, open_page: Open) -> None:
    home.answer(range(3))
    page = open_page(home.url)
    tab_to(page, "#threshold-edge")
    page.keyboard.press("End")
    assert text(page, ".slider.edge output") == "1.00"
    wait_for_states(page, home, 2)
    assert text(page, ".slider.edge output") == "1.00"  # what is in use does not move it
    tab_to(page, "#reset")
    page.keyboard.press("Enter")
    assert text(page, ".slider.edge output") == "0.50"


def test_thresholds_without_the_broker_are_refused_in_words(
    home: Home, open_page: Open, problems: Problems
) -> None:
    home.answer(range(3))
    page = open_page(home.url)
    home.live.connect(False)
    wait_for(page, "#threshold-state", "The edge does not report its thresholds")
    tab_to(page, "#threshold-local")
    page.keyboard.press("ArrowRight")
    tab_to(page, "#apply")
    page.keyboard.press("Enter")
    wait_for(page, "#said.bad", "nothing changed: the broker")
    problems.expect("503.*thresholds")
    assert home.store.list_changes("home", 5) == []


def test_kill_and_start_a_node(home: Home, open_page: Open, problems: Problems) -> None:
    demo = home.demo()
    home.answer(range(3))
    page = open_page(home.url)
    button = "button[data-node=cam2]"
    tab_to(page, button)
    assert page.get_by_role("button", name="Kill cam2").count() == 1
    page.keyboard.press("Enter")
    wait_for(page, "#said", "cam2 was killed.")
    assert demo.alive["cam2"] is False
    wait_for(page, button, "Start")
    assert page.evaluate("document.activeElement.dataset.node") == "cam2"
    wait_for(page, "#standing", "cam2 is absent; answers continue.")
    page.keyboard.press("Enter")
    wait_for(page, "#said", "cam2 was started.")
    assert demo.alive["cam2"] is True
    wait_for(page, "#standing", "All is well.")
    tab_to(page, "button[data-node=broker]")
    page.keyboard.press("Enter")
    wait_for(page, "#said.bad", "broker: the broker was not started by this demo")
    problems.expect("409")
