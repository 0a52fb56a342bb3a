"""The contact sheet: by keyboard on a desk, by touch on a telephone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ddnn.data.recordings import UNLABELLED, RecordingStore
from ddnn.data.recordings.labelling import LabelBoard
from ddnn.machines.picture_collector import Picture
from tests.browser.chromium import WAIT_MS, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

CAMERAS = ("cam1", "cam2", "cam3")
SAMPLES = 5


def make_jpeg(camera: int, sample: int) -> bytes:
    from PIL import Image

    buffer = BytesIO()
    picture = Image.new("RGB", (160, 120), (40 * sample, 80 * camera, 90))
    picture.paste((250, 250, 250), (20 * sample, 30, 20 * sample + 30, 70))
    picture.save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    store = RecordingStore(tmp_path, "20260102-030405-ab12", "home", "0.1")
    for burst, label in enumerate((UNLABELLED, "nobody"), 1):
        store.begin_burst(burst, label, (0.0, 9.0), 0.5)
        for number in range(SAMPLES if burst == 1 else 2):
            for place, camera in enumerate(CAMERAS):
                if (burst, number, place) == (1, 4, 2):
                    continue  # that camera was away
                jpeg = make_jpeg(place, number)
                name = 1000 * burst + number
                store.keep(Picture(camera, "20260102-030405-ab12", burst, name, jpeg))
    store.finish({}, -1)
    return tmp_path


@pytest.fixture
def url(directory: Path) -> Iterator[str]:
    import waitress  # type: ignore[import-untyped]

    from ddnn.cli.label.app import create_app

    server = waitress.create_server(create_app(LabelBoard(directory)), host="127.0.0.1", port=0)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}/"
    server.close()  # its thread ends with the browser's last connection
    server.task_dispatcher.shutdown()


def list_names(directory: Path, camera: str, label: str) -> list[str]:
    return sorted(file.stem[-4:] for file in (directory / camera / label).glob("*.jpg"))


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def wait_until_written(page: Page) -> None:
    """The page shows at once what the requests that it sends will do."""
    page.locator("#sheet[aria-busy=false]").wait_for(state="attached")


def test_all_samples_are_labelled_by_keyboard(
    open_page: Callable[..., Page], url: str, directory: Path
) -> None:
    page = open_page(url)
    wait_for(page, "#position", "1 of 7")
    assert page.locator("#sheet tbody tr").count() == 7
    assert page.locator("#sheet thead th").all_inner_texts() == ["sample", *CAMERAS]
    assert page.locator("#sheet td.none").count() == 1  # the view of the camera that was away
    press(page, "n")
    page.keyboard.type("person")
    press(page, "Enter")
    wait_for(page, "#classes", "person")
    wait_for(page, "#position", "2 of 7")
    press(page, "2")  # classes are in the order of their names: nobody, person
    wait_for(page, "#position", "3 of 7")
    wait_for(page, "#filter", "person (2)")
    assert list_names(directory, "cam1", "person") == ["1000", "1001"]
    press(page, "Shift+ArrowDown")
    wait_for(page, "#position", "4 of 7, 2 selected")
    press(page, "1")
    wait_for(page, "#filter", "nobody (4)")
    assert list_names(directory, "cam3", "nobody") == ["1002", "1003", "2000", "2001"]
    # Select and drop, per-view "sees nothing", undo.
    press(page, "Space", "x")
    wait_for(page, "#filter", "dropped (1)")
    assert "1003" not in list_names(directory, "cam1", "nobody")
    press(page, "u")
    wait_for(page, "#filter", "dropped (0)")
    press(page, "ArrowRight", "b")
    wait_for(page, "#sheet td.aside", "sees nothing")
    wait_until_written(page)
    assert "1003" not in list_names(directory, "cam2", "nobody")
    assert "1003" in list_names(directory, "cam1", "nobody")
    press(page, "b")
    page.locator("#sheet td.aside").wait_for(state="detached")
    page.locator("#filter").select_option("waiting")
    wait_for(page, "#position", "1 of 1")
    page.locator("#sheet-frame").focus()
    press(page, "1")
    page.locator("#empty").wait_for()
    wait_until_written(page)
    assert LabelBoard(directory).classes == ["nobody", "person"]
    assert not (directory / "cam1" / UNLABELLED).exists()


def test_keys_that_are_pressed_quickly_leave_no_sample_out(
    open_page: Callable[..., Page], url: str, directory: Path
) -> None:
    """Each change takes a while to be written; the next key does not wait for it."""
    page = open_page(url)
    wait_for(page, "#position", "1 of 7")
    page.route("**/api/*", lambda route: (time.sleep(0.05), route.continue_()))
    press(page, "1", "1", "1", "x", "1")
    wait_for(page, "#position", "5 of 6")
    wait_for(page, "#filter", "nobody (6)")
    names = ["1000", "1001", "1002", "1004", "2000", "2001"]
    assert list_names(directory, "cam1", "nobody") == names
    assert list_names(directory, "cam1", UNLABELLED) == []
    assert page.locator("#message").inner_text() == ""


def test_a_page_that_is_closed_before_all_is_written_asks_first(
    open_page: Callable[..., Page], url: str
) -> None:
    page = open_page(url)
    wait_for(page, "#position", "1 of 7")
    held: list[Route] = []
    page.route("**/api/*", lambda route: held.append(route))
    press(page, "1")
    with page.expect_event("dialog", timeout=WAIT_MS) as asked:
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    asked.value.dismiss()
    while not held:
        page.wait_for_timeout(50)
    held[0].continue_()
    wait_until_written(page)


def test_a_telephone_labels_by_touch_and_nothing_is_cut_off(
    open_page: Callable[..., Page], url: str, directory: Path
) -> None:
    page = open_page(url, 390)
    wait_for(page, "#position", "1 of 7")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for selector in ("footer button:visible", "#filter"):
        for box in page.locator(selector).all():
            found = box.bounding_box()
            assert found is not None
            assert 0 <= found["x"] <= found["x"] + found["width"] <= 390
            assert found["y"] + found["height"] <= 844
    rows = page.locator("#sheet tbody tr")
    rows.nth(0).locator("td button").first.click()
    rows.nth(1).locator("td button").first.click()
    wait_for(page, "#position", "2 selected")
    page.locator("#classes button").filter(has_text="nobody").click()
    wait_for(page, "#filter", "nobody (4)")
    rows.nth(2).locator("td button").first.click()
    page.locator("#drop").click()
    wait_for(page, "#filter", "dropped (1)")
    page.locator("#undo").click()
    wait_for(page, "#filter", "dropped (0)")
    assert list_names(directory, "cam2", "nobody") == ["1000", "1001", "2000", "2001"]


def test_other_pages_change_nothing(directory: Path) -> None:
    from ddnn.cli.label.app import create_app

    client = create_app(LabelBoard(directory)).test_client()
    name = "20260102-030405-ab12-1-1000"
    local = {"base_url": "http://127.0.0.1:8090"}
    assert client.get("/api/samples", base_url="http://evil.example").status_code == 403
    body = {"samples": [name], "label": "x"}
    assert client.post("/api/label", json=body, **local).status_code == 403
    headers = {"X-DDNN": "1"}
    assert client.post("/api/label", json=body, headers=headers, **local).status_code == 200
    bad = {**body, "label": "../x"}
    answer = client.post("/api/label", json=bad, headers=headers, **local)
    assert (answer.status_code, "label '../x'" in answer.json["error"]) == (400, True)
    for path in ("/page/../app.py", f"/picture/{name}/..", "/picture/x/cam1"):
        assert client.get(path, **local).status_code in (400, 404)
    small = client.get(f"/picture/{name}/cam1", **local)
    assert (small.status_code, small.mimetype) == (200, "image/jpeg")
