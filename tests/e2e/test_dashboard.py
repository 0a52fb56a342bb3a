"""The page over a whole site: what is killed in the browser is killed, and answers go on."""

from __future__ import annotations

import re
import time

import pytest

from tests.browser.chromium import text, tile, wait_for

pytestmark = pytest.mark.timed

BROKER_SAID_S = 5.0
RATE_HZ = 10.0


@pytest.fixture
def page(open_site, open_page, scenes_bundle, scenes_frames, scenes_split):
    site = open_site(
        scenes_bundle, scenes_frames, scenes_split.labels, rate_hz=RATE_HZ, deadline_s=1.5
    )
    page = open_page(site.page)
    page.site = site
    wait_for(page, "#age", "live")
    return page


def count_answers(page) -> int:
    return int(text(page, tile("Samples answered") + " .number").replace(",", ""))


def assert_answers_go_on(page, samples: int = 10) -> None:
    before = count_answers(page)
    until_s = time.monotonic() + 10 + samples / RATE_HZ
    while count_answers(page) < before + samples:
        assert time.monotonic() < until_s, f"{count_answers(page)} answers, {before} before"
        page.wait_for_timeout(100)


def act(page, what: str, node: str) -> None:
    page.click(f"button[data-node='{node}'][data-what='{what}']")


def test_kill_in_the_browser_and_answers_go_on(page) -> None:
    fleet = page.site.fleet
    for node in ("cam3", "cloud", "edge"):
        assert_answers_go_on(page)
        pids = {name: fleet.find_pid(name) for name in fleet.nodes}
        act(page, "kill", node)
        wait_for(page, f"button[data-node='{node}'][data-what='start']")
        assert not fleet.is_alive(node)
        wait_for(page, f"#node-rows tr[data-key$='/{node}']", "lost")
        wait_for(page, "#event-rows, #events", re.compile(rf"{node} died"))
        assert_answers_go_on(page, 20)
        act(page, "start", node)
        wait_for(page, f"#node-rows tr[data-key$='/{node}']", "online")
        assert_answers_go_on(page)
        changed = {name for name in pids if fleet.find_pid(name) != pids[name]}
        assert changed == {node}


def test_a_broker_that_is_away_is_said_within_five_seconds_and_mends(page) -> None:
    assert_answers_go_on(page)
    act(page, "kill", "broker")
    killed_s = time.monotonic()
    wait_for(page, "#problems", "No connection to the broker")
    assert time.monotonic() - killed_s < BROKER_SAID_S
    act(page, "start", "broker")
    page.locator("#problems").filter(has_not_text="broker").wait_for(state="attached")
    assert_answers_go_on(page)


def test_a_threshold_that_is_applied_is_used_by_the_edge_even_after_a_restart(page) -> None:
    """With 0 nothing is sure at the local exit any more."""
    assert_answers_go_on(page)
    page.locator("input[type=range]").first.fill("0")
    page.get_by_role("button", name="Apply").click()

    def exits(last: int) -> set[str]:
        now = page.site.tick()
        stored = page.site.list_stored(range(now - last - 8, now - 8))
        return {record.answer.exit for record in stored}

    def wait_until_escalated() -> None:
        until_s = time.monotonic() + 15
        while "local" in exits(5) or not exits(5):
            assert time.monotonic() < until_s
            page.wait_for_timeout(200)

    wait_until_escalated()
    page.site.fleet.send_signal("edge", 9)
    page.wait_for_timeout(500)
    page.site.fleet.start("edge")
    page.wait_for_timeout(4000)
    wait_until_escalated()
