"""What is to be read on the page, and that it follows what happens."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.browser.chromium import Open, Problems, text, tile, wait_for, wait_for_answers
from tests.browser.home import CAMERAS, Home

if TYPE_CHECKING:
    from playwright.sync_api import Page


# Pixels of the chart of shares that have the colour of an exit.
AREA = """(name) => {
  const canvas = document.querySelector("#chart-shares canvas");
  const hex = getComputedStyle(document.body).getPropertyValue(`--${name}`).trim();
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((_, i) =>
    i % 4 === 0 && data[i] === r && data[i + 1] === g && data[i + 2] === b).length;
}"""


def wait_until_live(page: Page) -> None:
    wait_for(page, "#age.live")


@pytest.mark.timed
def test_the_first_picture_has_the_numbers(home: Home, open_page: Open) -> None:
    """They come with the page, and are painted at once, best of three."""
    home.answer(range(3))
    painted_ms = []
    for _ in range(3):
        page = open_page("about:blank")
        page.route("**/api/v1/**", lambda route: None)  # nothing else is ever heard
        page.goto(home.url)
        assert "Samples answered 3" in text(page, tile("Samples answered"))
        assert page.locator("#sample-rows > li").count() == 3
        painted_ms.append(
            page.evaluate(
                "new Promise(resolve => new PerformanceObserver(list => resolve("
                "list.getEntriesByName('first-contentful-paint')[0].startTime))"
                ".observe({type: 'paint', buffered: true}))"
            )
        )
        page.close()
    assert min(painted_ms) < 3000


def test_the_numbers_are_there_and_change_as_answers_come(home: Home, open_page: Open) -> None:
    home.answer(range(3))
    page = open_page(home.url)
    wait_until_live(page)
    assert text(page, tile("Samples answered")).startswith("Samples answered 3")
    accuracy = text(page, tile("Accuracy"))
    assert accuracy.startswith("Accuracy 100.0 % 43.9 to 100.0 % (95 %) of 3 known")
    assert "expected now 97.0 % always naming one class: 100.0 %" in accuracy
    assert "Of each class, in the newest known samples, is recognized: " in text(page, "#recall")
    sent = text(page, tile("Sent per sample and camera"))
    assert "40.0 B 77× less than raw 24× less than JPEG" in sent
    assert "All is well. 3 cameras answer together." in text(page, "#standing")
    assert text(page, "#exit-rows .local").startswith("local scores of all cameras 100.0 % 3")
    assert page.locator("#exit-bar rect").first.get_attribute("width") == "100%"

    lost = {"missing": ["cam2"], "members": ["cam1", "cam3"], "quality": "degraded"}
    exit_trace = [("local", 1, 0.8), ("edge", 0, 0.7), ("cloud", 2, 0.1)]
    home.answer(range(3, 6), exit="cloud", label=2, exit_trace=exit_trace, late=True, **lost)
    home.live.change("cam2", state="lost", last_seen_age_s=30.0)
    home.store.add_event(time.time(), "home", "cam2", "died")
    wait_for_answers(page, 6)
    wait_for(page, tile("Nodes online"), "3 of 4")
    assert "Accuracy 50.0 %" in text(page, tile("Accuracy"))
    assert "3 50.0 %: someone was missing 3 delivered late" in text(page, tile("Degraded answers"))
    assert "3 of 4 absent: cam2" in text(page, tile("Nodes online"))
    assert "cam2 is absent; answers continue. 2 of 3 cameras" in text(page, "#standing")
    assert "expected to be right in 91.0 %" in text(page, "#standing")
    widths = [rect.get_attribute("width") for rect in page.locator("#exit-bar rect").all()]
    assert widths == ["50%", "0%", "50%"]
    row = text(page, "#node-rows .lost")
    assert row.startswith("cam2 counts device lost 30 s ago 57.0 MB 1.2")
    assert text(page, "#event-rows").startswith("cam2 died")


def test_a_sample_tells_what_each_camera_said(home: Home, open_page: Open) -> None:
    exit_trace = [("local", 0, 0.8), ("edge", 1, 0.2)]
    fields = {"exit": "edge", "exit_trace": exit_trace, "truth": 2, "missing": ["cam3"]}
    votes = {"cam1": (1, 0.9), "cam2": (0, 0.6)}
    home.answer(range(7, 8), **fields, votes=votes, members=["cam1", "cam2"])
    page = open_page(home.url)
    row = page.locator("#sample-rows li[data-key='home/7']")
    said = text(page, "#sample-rows > li")
    assert "bus ✗ wrong: person #7" in said
    assert "local , not sure: car, entropy 0.80 edge , answered: bus, entropy 0.20" in said
    assert "90 % sure, 12.0 ms without cam3" in said
    cameras = [" ".join(vote.inner_text().split()) for vote in row.locator(".votes li").all()]
    assert cameras == ["cam1 bus 90 %", "cam2 car 60 %", "cam3 absent"]
    bars = [rect.get_attribute("width") for rect in row.locator(".votes rect").all()]
    assert bars == ["90%", "60%"]
    assert row.locator(".votes .differs").count() == 2  # the bar and its camera
    assert page.locator("#sample-rows img").count() == 0  # no demo: no image leaves a device


def test_an_empty_page_says_so_and_fills_itself(home: Home, open_page: Open) -> None:
    page = open_page(home.url)
    wait_until_live(page)
    assert "No sample has been answered yet. 3 cameras online" in text(page, "#standing")
    assert page.locator("#samples .if-empty").is_visible()
    assert page.locator("#exits table").is_hidden()
    wait_for(page, "#charts-note", "Drawn as samples are answered.")
    home.answer(range(30))
    wait_for_answers(page, 30)
    page.locator("#samples .if-empty").wait_for(state="hidden")
    page.locator("#sample-rows > li").nth(5).wait_for()
    assert page.locator("#sample-rows > li").count() == 6
    page.get_by_role("button", name="Show all 20").click()
    assert page.locator("#sample-rows > li").count() == 20


def test_the_charts_are_pictures_sentences_and_tables(home: Home, open_page: Open) -> None:
    for minute in range(1, 6):
        home.answer(range(minute * 10, minute * 10 + 4), ago_s=minute * 60.0)
        cloud = {"exit": "cloud", "label": 2, "latency_s": 0.5}
        home.answer(range(minute * 10 + 4, minute * 10 + 5), ago_s=minute * 60.0, **cloud)
    page = open_page(home.url)
    wait_for(page, "#chart-shares .readout", "local 80 %, cloud 20 %")
    wait_for(page, "#chart-accuracy .readout", "measured 80.0 % of 5, expected 97.0 %")
    assert "cloud" in text(page, "#chart-latency .readout")
    for name in ("shares", "accuracy", "latency"):
        drawn = page.evaluate(
            "name => { const canvas = document.querySelector(`#chart-${name} canvas`);"
            " const { data } = canvas.getContext('2d')"
            "   .getImageData(0, 0, canvas.width, canvas.height);"
            " return new Set(new Uint32Array(data.buffer)).size }",
            name,
        )
        assert drawn > 10, name  # lines, letters and areas
        page.locator(f"#chart-{name} summary").click()
    rows = page.locator("#chart-shares tbody tr")
    rows.nth(4).wait_for()
    assert rows.count() == 5
    assert text(page, "#chart-shares thead") == "From Samples local cloud"
    assert text(page, "#chart-shares tbody tr:first-child").endswith("5 80 % 20 %")
    assert text(page, "#chart-accuracy tbody tr:first-child").endswith(
        "80.0 % 37.6 to 96.4 % 5 97.0 %"
    )
    # The areas are as large as the shares.
    local, cloud = (page.evaluate(AREA, name) for name in ("local", "cloud"))
    assert local / cloud == pytest.approx(4, rel=0.1)
    # In another size and another colour they are drawn again.
    before = page.locator("#chart-shares canvas").bounding_box()
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "width => document.querySelector('#chart-shares .u-wrap').clientWidth < width",
        arg=before["width"] if before else 0,
    )
    fits = "document.querySelector('#chart-shares .plot').scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    page.get_by_text("24 h", exact=True).click()
    wait_for(page, "#chart-shares .readout", "local 80 %")


def test_what_happens_now_is_drawn_by_the_second(home: Home, open_page: Open) -> None:
    home.answer(range(2))
    page = open_page(home.url)
    wait_for(page, "#ranges label:has(:checked)", "3 min")  # the store knows of one minute only
    home.answer(range(2, 6))
    wait_for(page, "#chart-shares .readout", "local 100 %")
    assert page.locator("#chart-shares canvas").count() == 1


def test_the_bytes_of_links_stand_beside_what_images_would_take(
    home: Home, open_page: Open
) -> None:
    home.answer(range(2))
    page = open_page(home.url)
    bars = page.locator("#byte-rows rect")
    assert [bar.get_attribute("class") for bar in bars.all()] == ["sent", "sent", "image", "image"]
    assert bars.last.get_attribute("width") == "100%"
    assert text(page, "#byte-rows tr:nth-child(3)") == "JPEG of each image 960 B"
    wait_for(page, "#link-rows tr:first-child", "3 cameras →")
    home.live.change("edge", counts={"bytes_sent": 22_345})
    wait_for(page, "#link-rows tr:last-child", "kB/s")


def test_counts_of_a_node_are_shown_when_asked_for(home: Home, open_page: Open) -> None:
    page = open_page(home.url)
    assert page.locator("#node-rows .counts").count() == 0
    button = page.get_by_role("button", name="edge counts")
    button.click()
    wait_for(page, "#node-rows .counts", "bytes sent")
    assert button.get_attribute("aria-expanded") == "true"
    assert "bytes sent 12,345" in text(page, "#node-rows .counts")
    home.live.change("edge", counts={"bytes_sent": 99})
    wait_for(page, "#node-rows .counts", "99")  # open as it is, it goes on
    button.click()
    page.locator("#node-rows .counts").wait_for(state="detached")


def test_samples_that_are_worth_a_label_come_first(home: Home, open_page: Open) -> None:
    sure, unsure = {"eta": 0.1, "truth": None}, {"eta": 0.9, "truth": None}
    home.answer(range(2), **sure)
    home.answer(range(2, 4), **unsure)
    home.answer(range(4, 30))  # of these the truth is known
    page = open_page(home.url)
    wait_for(page, "#age.live")
    button = page.locator("#doubtful")
    button.click()
    wait_for(page, "#samples-title", "Worth a label")
    wait_for(page, "#sample-rows", "#3")
    rows = [text.split(",")[0] for text in page.locator("#sample-rows .what").all_inner_texts()]
    assert [row.split("#")[1] for row in rows] == ["3", "2", "1", "0"]
    page.locator("#sample-rows select").first.select_option("2")
    wait_for(page, "#said", "saved")
    assert home.store.list_answers("home", 3, 3, 1)[0].labelled == 2
    button.click()
    wait_for(page, "#samples-title", "Newest samples")
    wait_for(page, "#sample-rows", "#29")


def test_the_list_stands_still_under_the_pointer(home: Home, open_page: Open) -> None:
    for minute in range(5):
        home.answer(range(4 * minute, 4 * minute + 4), ago_s=(5 - minute) * 60.0)
    page = open_page(home.url)
    wait_for(page, "#chart-shares .readout", re.compile(r"\S"))  # the charts move what is below
    page.locator("#sample-rows > li").first.hover()
    first = "#sample-rows > li:first-child .what"
    assert "#19" in text(page, first)
    home.answer(range(20, 25))
    wait_for(page, "#held", "Paused, 5 newer.")
    assert "#19" in text(page, first)
    page.locator("h1").hover()
    wait_for(page, first, "#24")
    page.get_by_role("button", name="Pause").click()
    home.answer(range(25, 30))
    wait_for(page, "#held", "Paused, 5 newer.")
    assert "#24" in text(page, first)


def test_several_sites_can_be_seen_one_by_one(home: Home, open_page: Open) -> None:
    home.answer(range(3))
    home.answer(range(5), site="barn", exit="cloud")
    page = open_page(home.url)
    wait_for_answers(page, 8)
    assert "Choose one site" in text(page, "#thresholds")
    assert page.locator("#sliders").is_hidden()
    page.get_by_label("Site").select_option("home")
    wait_for_answers(page, 3)
    assert page.locator("#sample-rows > li").count() == 3
    page.locator("#sliders input").first.wait_for()
    page.get_by_label("Site").select_option("barn")
    wait_for_answers(page, 5)
    page.get_by_label("Site").select_option("")
    wait_for_answers(page, 8)
    assert "All is well." in text(page, "#standing")
    home.live.change("cam2", state="lost")
    page.locator("#standing", has_text="home/cam2 is absent.").wait_for()


def test_the_views_are_shown_in_a_demo_only(home: Home, open_page: Open) -> None:
    home.demo()
    home.answer(range(2))
    page = open_page(home.url)
    page.locator("#sample-rows img").first.scroll_into_view_if_needed()
    page.wait_for_function(
        "[...document.querySelectorAll('#sample-rows img')].every(i => i.naturalWidth > 0)"
    )
    image = page.locator("#sample-rows img").first
    assert image.get_attribute("alt") == f"What {len(CAMERAS)} cameras saw"


def test_without_javascript_the_numbers_are_there_and_nothing_says_live(
    home: Home, open_page: Open, problems: Problems
) -> None:
    home.answer(range(3))
    page = open_page(home.url, java_script_enabled=False)
    said = text(page, "noscript")
    assert "does not update" in said
    assert "3 samples are answered, 100.0 % of 3 known rightly (always naming" in said
    assert "cam1, cam2, cam3" in said
    assert "live" not in text(page, "header")
    problems.expect(r"\.js \(csp\)")  # Chromium's word for scripts that are switched off
