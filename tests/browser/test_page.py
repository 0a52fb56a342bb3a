"""The page in a real Chromium: its numbers, live updates, staleness, widths, no console error."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from cloud_app.store import Store
from cloud_app.web import BundleView, NodeView, Server, create_app, serve
from ddnn.errors import LinkError
from ddnn.protocol.messages import Answer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

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
WAIT_MS = 10_000
HOSTILE = "<img src=x onerror=document.title='owned'>"
ANSWER = Answer(
    sample=1,
    node="edge",
    exit="local",
    label=1,
    probabilities=[0.1, 0.9],
    eta=0.3,
    members=["cam1", "cam2"],
    missing=[],
    quality="full",
    expected_accuracy=0.97,
    bundle="b1",
    captured_at_s=10.0,
    answered_at_s=10.1,
    latency_s=0.012,
    truth=1,
    payload_bytes=80,
    wire_bytes=300,
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    missing = []
    if importlib.util.find_spec("playwright") is None:
        missing.append("playwright (pip install playwright)")
    if CHROMIUM is None:
        missing.append("chromium (apt install chromium)")
    if missing:
        reason = f"the browser tests need {' and '.join(missing)}"
        if os.environ.get("DDNN_REQUIRE_PARTS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=60_000
        )
        yield browser
        browser.close()


class Site:
    """A store, nodes that a test may change, and a server that it may close and start again."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(f"sqlite:///{folder}/cloud.db")
        self.nodes = [
            NodeView("home", "edge", "edge", "online", "b1", 0.4, 96_000_000, {"answered": 3}),
            NodeView("home", "cam1", "device", "online", "b1", 1.0, 80_000_000),
            NodeView("home", "cam2", "device", "lost", "b1", 30.0, 80_000_000),
        ]
        self.bundle = BundleView("b1", 3072, 960.0, ("car", "bus", "person"))
        self._app = create_app(self.store, lambda: self.nodes, lambda: self.bundle)
        self.server: Server = serve(self._app, port=0)
        self.url = f"http://127.0.0.1:{self.server.port}/"

    def save(self, samples: range, **changes: object) -> None:
        answer = msgspec.structs.replace(ANSWER, answered_at_s=time.time(), **changes)
        self.store.save([("home", msgspec.structs.replace(answer, sample=i)) for i in samples])

    def restart(self) -> None:
        self.server = serve(self._app, port=self.server.port)

    def close(self) -> None:
        self.server.close()
        self.store.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


Open = Callable[..., "Page"]


@pytest.fixture
def problems() -> list[str]:
    """What the console and the page complained of; empty at the end, or the test fails."""
    return []


@pytest.fixture
def opened(browser: Browser, site: Site, problems: list[str]) -> Iterator[Open]:
    contexts = []

    def opened(width: int = 1280, scheme: str = "light", javascript: bool = True) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 844},
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=javascript,
        )
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.on(
            "console",
            lambda message: (
                problems.append(message.text) if message.type in ("error", "warning") else None
            ),
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
        page.goto(site.url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def text(page: Page, selector: str) -> str:
    return " ".join(page.locator(selector).inner_text().split())


def wait_for(page: Page, selector: str, content: str | re.Pattern[str]) -> None:
    page.locator(selector).filter(has_text=content).first.wait_for()


def test_the_numbers_are_there_and_change_as_answers_come(site: Site, opened: Open) -> None:
    site.save(range(3))
    page = opened()
    wait_for(page, "#age.live", "live")
    assert text(page, "[data-text=answered]") == "3"
    assert text(page, "[data-text=accuracy]") == "100.0 %"
    assert text(page, "[data-text=bytes]") == "40.0 B"
    assert "77× less than raw" in text(page, "[data-text=reduction]")
    assert "cam2 device lost 30 s ago" in text(page, ".nodes")
    assert page.locator(".exits tbody tr").count() == 1

    site.save(range(3, 6), exit="cloud", label=2, missing=["cam9"], quality="degraded")
    site.store.add_event(time.time(), "home", "cam2", "joined")
    site.nodes[2] = NodeView("home", "cam2", "device", "online", "b1", 0.1)
    wait_for(page, "[data-text=answered]", "6")
    assert text(page, "[data-text=accuracy]") == "50.0 %"
    assert page.locator(".exits tbody tr").count() == 2
    bar = page.locator(".exits .local .bar rect")
    assert bar.get_attribute("width") == "50%"
    first = text(page, ".answers tbody tr:first-child")
    assert first.startswith("5 ")
    assert "person wrong: bus cloud 12.0 ms degraded without cam9" in first
    assert text(page, ".events tbody").startswith("cam2 joined")
    assert text(page, "[data-text=online]") == "3 of 3"


def test_an_empty_page_fills_itself(site: Site, opened: Open) -> None:
    page = opened()
    wait_for(page, "#age.live", "live")
    assert page.locator(".answers .empty").is_visible()
    site.save(range(30))
    wait_for(page, "[data-text=answered]", "30")
    assert page.locator(".answers .empty").is_hidden()
    assert page.locator(".answers tbody tr").count() == 20


def test_it_says_stale_when_the_server_is_gone_and_live_when_it_is_back(
    site: Site, opened: Open, problems: list[str]
) -> None:
    site.save(range(3))
    page = opened()
    wait_for(page, "#age.live", "live")
    assert page.locator("#alert").is_hidden()
    site.server.close()
    wait_for(page, "#age.stale", "stale")
    assert "Not live: these are the numbers of 20" in text(page, "#alert")
    assert "The server does not answer." in text(page, "#alert")
    wait_for(page, "#age.stale", re.compile(r"stale, (?:[3-9]|\d\d) s old"))  # it keeps counting
    assert page.locator("body.stale").count() == 1
    # The browser itself reports every refused poll; of the page's own there is nothing.
    assert all("api/v1/summary" in said or "ERR_CONNECTION_REFUSED" in said for said in problems)
    site.save(range(3, 9))
    site.restart()
    wait_for(page, "#age.live", "live")
    assert text(page, "[data-text=answered]") == "9"
    assert page.locator("#alert").is_hidden()
    problems.clear()


def test_it_says_stale_while_the_database_is_away(
    site: Site, opened: Open, problems: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened()
    wait_for(page, "#age.live", "live")

    def away() -> None:
        raise LinkError(f"database x: {HOSTILE}; try again")

    monkeypatch.setattr(site.store, "summary", away)
    wait_for(page, "#alert", "The server says 503: database x")
    assert "<img" in text(page, "#alert")  # as text
    monkeypatch.undo()
    wait_for(page, "#age.live", "live")
    assert all("503" in said for said in problems)
    problems.clear()


def test_a_server_that_hangs_is_stale_too(site: Site, opened: Open, problems: list[str]) -> None:
    page = opened()
    wait_for(page, "#age.live", "live")
    page.route("**/api/v1/summary", lambda route: None)  # asked, and never answered
    wait_for(page, "#age.stale", "stale")
    page.unroute("**/api/v1/summary")
    wait_for(page, "#age.live", "live")
    assert all(said.startswith("failed: ") for said in problems)
    problems.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(
    site: Site, opened: Open, width: int, scheme: str
) -> None:
    long = "a-very-long-name-" * 3 + "camera-thirteen"  # ids have up to 64 characters
    site.save(range(2**53 - 20, 2**53), missing=[long, long + "2"], quality="degraded", late=True)
    site.save(range(5), exit="device", latency_s=12345.6)
    site.store.add_event(1.0, "home", long, "lost")
    site.nodes += [
        NodeView("home", long, "device", "stopped", "0123456789abcdef", 9e9, 10**12, {long: 2**53})
    ]
    site.bundle = BundleView("0123456789abcdef", 3072, 960.0, (long, long))
    page = opened(width, scheme)
    wait_for(page, "#age.live", "live")
    inner, scrolled = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert (inner, scrolled) == (width, width)
    too_wide = page.evaluate(
        "[...document.querySelectorAll('section, section *')].filter(e =>"
        " e.getBoundingClientRect().right > e.closest('section').getBoundingClientRect().right - 8)"
        ".filter(e => e.tagName !== 'SECTION')"
        ".map(e => e.outerHTML.slice(0, 200))"
    )
    assert too_wide == []
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"
    assert dark == (scheme == "dark")


def test_hostile_names_are_shown_and_do_nothing(site: Site, opened: Open) -> None:
    site.bundle = BundleView(HOSTILE, 3072, 960.0, (HOSTILE, HOSTILE))
    site.nodes.append(NodeView("home", HOSTILE, HOSTILE, "online", HOSTILE, 1.0, 0, {HOSTILE: 1}))
    site.save(range(3), missing=[HOSTILE])
    site.store.add_event(1.0, "home", HOSTILE, HOSTILE)
    page = opened()
    wait_for(page, "#age.live", "live")
    site.save(range(3, 5), missing=[HOSTILE])
    wait_for(page, "[data-text=answered]", "5")
    assert page.locator("img").count() == 0
    assert HOSTILE in text(page, ".nodes")
    assert page.title() == "ddnn"


def test_without_javascript_the_numbers_are_there_and_nothing_says_live(
    site: Site, opened: Open
) -> None:
    site.save(range(3))
    page = opened(javascript=False)
    assert text(page, "[data-text=answered]") == "3"
    assert text(page, "#age").startswith("as of 20")
    assert "does not update" in text(page, "noscript")
