"""A real Chromium. Any console message, page error or failed request fails the test."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.parts import need

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
WAIT_MS = 60_000

Open = Callable[..., "Page"]


@pytest.fixture(scope="module")  # not longer: Playwright can be started once at a time
def browser() -> Iterator[Browser]:
    need(importlib.util.find_spec("playwright"), "needs playwright (pip install playwright)")
    need(CHROMIUM, "needs chromium (apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=60_000
        )
        yield browser
        browser.close()


class Problems(list[str]):
    """What the console and the page complained of; empty at the end, or the test fails."""

    def expect(self, pattern: str) -> None:
        """What a test brought about itself, and nothing else."""
        assert self, f"nothing was reported; expected {pattern}"
        assert [said for said in self if not re.search(pattern, said)] == []
        self.clear()


@pytest.fixture
def problems() -> Problems:
    return Problems()


@pytest.fixture
def open_page(browser: Browser, problems: Problems) -> Iterator[Open]:
    contexts = []

    def open_page(url: str, width: int = 1280, scheme: str = "light", **options: object) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 844},
            color_scheme=scheme,  # type: ignore[arg-type]
            **options,  # type: ignore[arg-type]
        )
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()

        def console(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                problems.append(f"{message.text} ({message.location['url']})")

        page.on("console", console)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "requestfailed",
            # A stream or a view that is left with its page is no failure.
            lambda request: (
                problems.append(f"failed: {request.url} ({request.failure})")
                if request.failure != "net::ERR_ABORTED"
                else None
            ),
        )
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")
        context.close()
    assert not problems, "; ".join(problems)


def text(page: Page, selector: str) -> str:
    """What is to be read there, in one line."""
    return " ".join(page.locator(selector).inner_text().split())


def wait_for(page: Page, selector: str, content: str | re.Pattern[str] = "") -> None:
    page.locator(selector).filter(has_text=content).first.wait_for()


def tile(name: str) -> str:
    """The selector of a number at the top."""
    return f"#headline [data-key='{name}']"


def wait_for_answers(page: Page, samples: int) -> None:
    wait_for(page, tile("Samples answered") + " .number", re.compile(rf"^{samples}$"))
