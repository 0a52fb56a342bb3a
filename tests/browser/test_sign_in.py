"""The way in and out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from cloud_app.web import routes, sign_in
from tests.browser.chromium import Open, Problems, text, wait_for, wait_for_answers
from tests.browser.home import Home

if TYPE_CHECKING:
    from playwright.sync_api import Page

PASSWORD = "correct horse"


@pytest.fixture
def locked_home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path, PASSWORD)
    home.answer(range(3))
    yield home
    home.close()


def enter(page: Page, password: str) -> None:
    page.wait_for_selector("#password:focus")  # without being asked to
    page.keyboard.type(password)
    page.keyboard.press("Enter")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_wrong_password_and_the_right_one(
    locked_home: Home, open_page: Open, problems: Problems, width: int
) -> None:
    page = open_page(locked_home.url, width)
    assert page.url.endswith("/login")
    assert page.get_by_label("Password of this page").is_visible()
    enter(page, "wrong horse")
    wait_for(page, "[role=alert]", "That is not the password.")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    problems.expect("403.*login")
    enter(page, PASSWORD)
    wait_for_answers(page, 3)
    wait_for(page, "#age.live")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login")
    page.goto(locked_home.url)
    assert page.url.endswith("/login")


def test_a_session_that_ends_is_said_and_links_to_sign_in(
    locked_home: Home, open_page: Open, problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page(locked_home.url)
    enter(page, PASSWORD)
    wait_for(page, "#age.live")
    later = SimpleNamespace(time=lambda: time.time() + sign_in.SESSION_S + 1)
    for module in (sign_in, routes):
        monkeypatch.setattr(module, "time", later)
    wait_for(page, "#problems", "Your session has ended.")
    assert page.locator("#age.stale").count() == 1
    assert re.search(r"The numbers are from \d\d:\d\d:\d\d\.", text(page, "#problems"))
    problems.expect("401")
    page.get_by_role("link", name="Sign in again").click()
    page.wait_for_url("**/login")
    monkeypatch.undo()
    enter(page, PASSWORD)
    wait_for(page, "#age.live")
    problems.clear()


def test_a_page_without_sign_in_says_so(home: Home, open_page: Open) -> None:
    page = open_page(home.url)
    assert page.get_by_role("button", name="Sign out").count() == 0
    assert "Sign-in is off" in text(page, "#open")
