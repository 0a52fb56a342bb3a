"""Cameras that behave otherwise than on validation data stand on the page, and at its top."""

from __future__ import annotations

from ddnn.exits.drift import Deviation
from tests.browser.chromium import Open, text, wait_for
from tests.browser.home import Home
from tests.browser.test_looks import assert_readable

DRIFT = "#drift"


def test_who_deviates_and_by_how_much(home: Home, open_page: Open) -> None:
    page = open_page(home.url)
    wait_for(page, "#age.live")
    assert page.locator(DRIFT).is_hidden()
    home.live.drift = [
        Deviation("local", "unsure", 400, 0.24, 0.25, -0.02, False),
        Deviation("cam1", "disagrees", 400, 0.12, 0.1, 0.06, False),
        Deviation("cam1", "unsure", 400, 0.25, 0.25, 0.0, False),
    ]
    wait_for(page, "#drift-note", "As on validation data, by the newest 400 samples")
    assert "cam1 12.0 % validation 10.0 % 25.0 % validation 25.0 %" in text(page, DRIFT)
    assert "the local exit 24.0 %" in text(page, DRIFT)
    home.live.drift[1] = Deviation("cam1", "disagrees", 400, 0.55, 0.1, 1.0, True)
    wait_for(page, "#drift-note", "Otherwise than on validation data: cam1 disagrees")
    assert page.locator("#drift tr.wrong").count() == 1
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert_readable(page, width)
