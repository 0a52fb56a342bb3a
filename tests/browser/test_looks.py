"""Widths, colours and motion: nothing overflows, everything can be read."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import Open, wait_for
from tests.browser.home import Home, node

if TYPE_CHECKING:
    from playwright.sync_api import Page

# Ratios of text that is on the page to what lies behind it (WCAG 2.1, 1.4.3), below the limit.
FAINT_TEXT = """() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = rgb(color).map((c) => c / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if ((rgb(color)[3] ?? 1) > 0) return color;
    }
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (element.closest("script, noscript, svg, .spoken") || !element.checkVisibility()) continue;
    if (!walker.currentNode.data.trim()) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(style.color), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push([walker.currentNode.data.trim(), ratio.toFixed(2)]);
  }
  return found;
}"""

# What sticks out of its card.
TOO_WIDE = """() => {
  const cards = [...document.querySelectorAll(".card, #headline > div, .statement")];
  return cards.flatMap((card) => {
    const edge = card.getBoundingClientRect().right - 4;
    return [...card.querySelectorAll("*")]
      .filter((e) => e.checkVisibility() && !e.closest(".scroll, .spoken, .u-wrap"))
      .filter((e) => e.getBoundingClientRect().right > edge)
      .map((e) => e.outerHTML.slice(0, 160));
  });
}"""


def assert_readable(page: Page, width: int) -> None:
    """No text is too faint, and nothing is wider than its place or the page."""
    assert page.evaluate(FAINT_TEXT) == []
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


BACKGROUND = {"light": "rgb(243, 245, 248)", "dark": "rgb(15, 19, 24)"}


def fill_home(home: Home) -> None:
    """Give every part of the page something to show."""
    demo = home.demo()
    for minute in range(1, 6):
        home.answer(range(minute * 100, minute * 100 + 5), ago_s=minute * 60.0)
    exit_trace = [("local", 0, 0.8), ("edge", 2, 0.2)]
    lost = {"missing": ["cam2"], "members": ["cam1", "cam3"], "quality": "degraded"}
    home.answer(range(900, 904), exit="edge", exit_trace=exit_trace, late=True, truth=None, **lost)
    home.answer(range(904, 906), exit="cloud", truth=2)
    home.answer(range(906, 908), exit="device")
    for what in ("joined", "died", "fell back to its own exit", "dropped 3 answers"):
        home.store.add_event(time.time(), "home", "cam2", what)
    demo.control("kill", "cam2")
    home.live.change("cam3", state="stopped")


def fill_with_long_names(home: Home) -> None:
    """Give the page the longest names and numbers that are allowed."""
    name = "a-very-long-name-" * 3 + "camera-thirteen"  # ids have up to 64 characters
    fill_home(home)
    home.answer(range(2**53 - 20, 2**53), missing=[name, name + "2"], quality="degraded")
    home.answer(range(5), exit="device", latency_s=12345.6)
    home.answer(range(3), site=name)
    home.store.add_event(1.0, "home", name, "lost")
    home.live.shown.append(
        node(name, "device", state="stopped", last_seen_age_s=9e9, counts={name: 2**53})
    )
    home.live.bundle = replace(home.live.bundle, id="0123456789abcdef", labels=(name,) * 3)


def open_all(page: Page) -> None:
    """What is folded, too."""
    wait_for(page, "#age.live")
    for summary in page.locator("summary").all():
        summary.click()
    page.locator("button.disclose").first.click()
    if page.locator("#threshold-local").is_visible():
        page.locator("#threshold-local").fill("0.9")
        wait_for(page, "#comparison", "with these")
    page.locator("#more-samples").click()
    page.wait_for_timeout(300)


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(390, "light"), (390, "dark"), (768, "light"), (1280, "light"), (1280, "dark")],
)
def test_all_can_be_read_and_nothing_sticks_out(
    home: Home, open_page: Open, width: int, scheme: str
) -> None:
    fill_home(home)
    page = open_page(home.url, width, scheme)
    open_all(page)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == BACKGROUND[scheme]
    assert_readable(page, width)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_longest_names_break(home: Home, open_page: Open, width: int) -> None:
    fill_with_long_names(home)
    page = open_page(home.url, width)
    open_all(page)
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_wrong_can_be_read_too(home: Home, open_page: Open, scheme: str) -> None:
    fill_home(home)
    home.live.connect(False)
    home.live.away = "the disk is full"
    page = open_page(home.url, 390, scheme)
    wait_for(page, "#problems", "the disk is full")
    assert page.evaluate(FAINT_TEXT) == []
    page.route("**/api/v1/**", lambda route: None)
    page.evaluate("document.body.classList.add('stale')")
    assert page.evaluate(FAINT_TEXT) == []
    # Wherever one has scrolled to, it is in sight.
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    box = page.locator("#problems").bounding_box()
    assert box is not None
    assert 0 <= box["y"] < 100


def test_who_wants_no_motion_gets_none(home: Home, open_page: Open) -> None:
    fill_home(home)
    moving = (
        "[...document.querySelectorAll('*')].filter(e =>"
        " getComputedStyle(e).transitionDuration !== '0s'"
        " || getComputedStyle(e).animationName !== 'none').length"
    )
    page = open_page(home.url, reduced_motion="reduce")
    wait_for(page, "#age.live")
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0


def test_the_page_has_landmarks_headings_and_names(home: Home, open_page: Open) -> None:
    fill_home(home)
    page = open_page(home.url)
    wait_for(page, "#age.live")
    for landmark in ("banner", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1, landmark
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.nodeName[1]))"
    )
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, select, input:not([type=hidden])')]"
        ".filter(e => e.checkVisibility() && !e.labels?.length && !e.textContent.trim())"
        ".map(e => e.outerHTML)"
    )
    assert nameless == []
    twice = page.evaluate(
        "[...document.querySelectorAll('[id]')].map(e => e.id)"
        ".filter((id, i, all) => all.indexOf(id) !== i)"
    )
    assert twice == []
    # Ages change each second: no one who listens wants to hear them.
    assert page.locator("#age").evaluate("e => e.closest('[aria-live], [role=status]')") is None
