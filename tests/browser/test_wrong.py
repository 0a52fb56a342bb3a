"""When things are wrong: it is said in words, nothing old is shown as live, and all recovers."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from cloud_app.views import NodeView
from cloud_app.web.board import Streams
from ddnn.errors import LinkError
from tests.browser.chromium import Open, Problems, text, tile, wait_for, wait_for_answers
from tests.browser.home import BROKER, Home, node, wait_for_states

HOSTILE = "<img src=x onerror=document.title='owned'>"
REFUSED = (
    "ERR_(CONNECTION_REFUSED|INCOMPLETE_CHUNKED_ENCODING|CONTENT_LENGTH_MISMATCH|EMPTY_RESPONSE)"
)


def test_a_server_that_is_gone_and_comes_back(
    home: Home, open_page: Open, problems: Problems
) -> None:
    home.answer(range(3))
    page = open_page(home.url)
    wait_for(page, "#age.live")
    assert page.locator("#problems > *").count() == 0
    home.server.close()
    wait_for(page, "#age.stale", re.compile(r"stale, \d+\ss old"))
    wait_for(page, "#problems", "The server does not answer.")
    assert "Not live." in text(page, "#problems")
    assert re.search(r"The numbers are from \d\d:\d\d:\d\d\.", text(page, "#problems"))
    assert page.locator("body.stale").count() == 1
    assert page.locator("#standing > *").count() == 0  # nothing says that all is well
    age_s = int(re.sub(r"\D", "", text(page, "#age")))
    older = "|".join(map(str, range(age_s + 1, age_s + 40)))
    wait_for(page, "#age.stale", re.compile(rf"stale, ({older})\s"))  # it goes on growing
    problems.expect(REFUSED)  # the browser itself reports these
    home.answer(range(3, 9))
    home.restart()
    wait_for(page, "#age.live")
    wait_for_answers(page, 9)
    assert page.locator("#problems > *").count() == 0
    problems.clear()


def test_without_the_broker_nothing_new_is_known_of_nodes(home: Home, open_page: Open) -> None:
    home.answer(range(3))
    page = open_page(home.url)
    wait_for(page, "#standing", "All is well.")
    home.live.connect(False)
    wait_for(page, "#problems", f"No connection to the broker {BROKER} since")
    broker = "#problems .statement:first-child"
    said = text(page, broker)
    assert "The nodes are shown as of then. Reason: Connection refused" in said
    assert "As of" in text(page, "#nodes-note")
    assert page.locator("#standing > *").count() == 0
    wait_for_states(page, home, 2)
    assert text(page, broker) == said  # said once, not again each second
    home.live.connect(True)
    wait_for(page, "#standing", "All is well.")
    assert page.locator("#nodes-note").is_hidden()


def test_without_the_database_the_numbers_of_before_stay_and_say_so(
    home: Home, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.answer(range(3))
    page = open_page(home.url)
    wait_for(page, "#age.live")

    def fail(*_: Any) -> None:
        raise LinkError(f"database x: {HOSTILE}; try again")

    monkeypatch.setattr(home.store, "summarize", fail)
    wait_for(page, "#problems", "The database is away.")
    said = text(page, "#problems")
    assert re.search(r"The answers are shown as of \d\d:\d\d:\d\d\.", said)
    assert HOSTILE in said  # as text
    assert "3" in text(page, tile("Samples answered"))
    assert page.locator("#sample-rows > li").count() == 3
    again = open_page(home.url)  # one who comes now has no numbers of before
    assert "No answers were read." in text(again, "#problems")
    assert "–" in text(again, tile("Samples answered"))
    monkeypatch.undo()
    for each in (page, again):
        wait_for(each, "#standing", "All is well.")
        wait_for_answers(each, 3)


def test_answers_that_cannot_be_written_are_said(home: Home, open_page: Open) -> None:
    home.answer(range(3))
    home.live.away = "the disk is full"
    page = open_page(home.url)
    wait_for(page, "#problems", "Reason: the disk is full")
    home.live.away = ""
    wait_for(page, "#standing", "All is well.")


def test_where_the_stream_is_refused_the_page_asks(
    home: Home, open_page: Open, problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Streams, "acquire", lambda _: False)
    home.answer(range(3))
    page = open_page(home.url)
    page.locator("#way").wait_for()
    assert "polls the numbers each second" in text(page, "#way")
    home.answer(range(3, 6))
    wait_for_answers(page, 6)
    assert "live" in text(page, "#age")
    problems.expect("503.*stream")


def test_where_the_stream_is_silent_the_page_asks(home: Home, open_page: Open) -> None:
    home.answer(range(3))
    page = open_page("about:blank")
    page.route("**/api/v1/stream", lambda route: None)  # connected, and never a word
    page.goto(home.url)
    page.locator("#way").wait_for()
    home.answer(range(3, 6))
    wait_for_answers(page, 6)
    assert page.locator("#age.live").count() == 1


def test_a_server_that_hangs_is_stale_too(
    home: Home, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page("about:blank")
    page.route(re.compile("/api/v1/(stream|state)"), lambda route: None)
    page.goto(home.url)
    wait_for(page, "#age.stale", re.compile(r"stale, [3-9]"))
    assert "Not live." in text(page, "#problems")


def test_hostile_names_are_shown_and_do_nothing(home: Home, open_page: Open) -> None:
    """Ids on the wire are checked; what is in the store or in a bundle must not need to be."""
    home.live.bundle = replace(
        home.live.bundle, id=HOSTILE, labels=(HOSTILE, HOSTILE), devices=(HOSTILE, "</script>")
    )
    home.live.shown.append(
        NodeView(HOSTILE, HOSTILE, HOSTILE, "online", HOSTILE, HOSTILE, 1.0, counts={HOSTILE: 1})
    )
    home.answer(range(3), missing=[HOSTILE], votes={HOSTILE: (0, 0.5)}, exit=HOSTILE)
    home.answer(range(3), site=HOSTILE)
    home.store.add_event(1.0, "home", HOSTILE, HOSTILE)
    page = open_page(home.url)
    wait_for(page, "#age.live")
    home.answer(range(3, 5), missing=[HOSTILE])
    wait_for_answers(page, 8)
    assert page.locator("img[src='x']").count() == 0
    assert page.locator("[onerror]").count() == 0
    for section in ("#nodes", "#samples", "#events", "#bundle"):
        assert HOSTILE in text(page, section), section
    assert page.title() == "ddnn"


def test_a_history_that_breaks_off_is_not_taken_for_none(home: Home, open_page: Open) -> None:
    home.answer(range(3))
    page = open_page(home.url)
    wait_for(page, "#age.live")
    page.route("**/api/v1/series*", lambda route: route.fulfill(body='{"buckets": [', status=200))
    page.locator("input[name=range][value='60']").check(force=True)
    wait_for(page, "#charts-note", "The history cannot be read: The server's answer broke off.")


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("edge", "The edge is gone; answers continue."),
        ("edge2", "edge2 is absent; answers continue."),
    ],
)
def test_an_edge_of_two_that_is_lost_is_said(
    home: Home, open_page: Open, lost: str, said: str
) -> None:
    """Configuration (f): each edge has cameras of its own, and the lead decides."""
    home.live.bundle = replace(home.live.bundle, edges=("edge", "edge2"))
    home.live.shown = [*home.live.shown, node("edge2", "edge")]
    home.answer(range(3))
    page = open_page(home.url)
    wait_for(page, "#standing", "All is well.")
    home.live.change(lost, state="lost")
    wait_for(page, "#standing", said)
    home.live.change(lost, state="online")
    wait_for(page, "#standing", "All is well.")
