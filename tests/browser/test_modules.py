"""The page's own modules, run in the browser: how they format numbers and keep elements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.home import Home

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NB = "\N{NO-BREAK SPACE}"


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    home = Home(tmp_path_factory.mktemp("home"))
    page = browser.new_page()
    page.goto(f"{home.url}healthz")
    yield page
    page.close()
    home.close()


@pytest.fixture(scope="module")
def call_format(page: Page) -> Callable[..., Any]:
    def call_format(name: str, *values: Any) -> Any:
        script = "async ([name, values]) => (await import('/static/format.js'))[name](...values)"
        return page.evaluate(script, [name, list(values)])

    return call_format


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("count", [0], "0"),
        ("count", [999_999], "999,999"),
        ("count", [1_234_567], f"1.23{NB}M"),
        ("count", [2**53], f"9,007.20{NB}T"),
        ("percent", [0], f"0.0{NB}%"),
        ("percent", [1], f"100.0{NB}%"),
        ("percent", [0.9996], f">99.9{NB}%"),
        ("percent", [0.0001], f"<0.1{NB}%"),
        ("percent", [0.934], f"93.4{NB}%"),
        ("percent", [0.9999, 0], f">99{NB}%"),
        ("interval", [[0.91, 0.952]], f"91.0 to 95.2{NB}%"),
        ("bytes", [0], f"0{NB}B"),
        ("bytes", [10.94], f"10.9{NB}B"),
        ("bytes", [962.4], f"962{NB}B"),
        ("bytes", [999.6], f"1.0{NB}kB"),
        ("bytes", [3072], f"3.1{NB}kB"),
        ("bytes", [57_000_000], f"57.0{NB}MB"),
        ("bytes", [2.5e15], f"2,500{NB}TB"),
        ("times", [3072, 10.9], "282×"),
        ("times", [30, 10], "3.0×"),
        ("times", [3072, 0], "–"),
        ("duration", [0.0041], f"4.1{NB}ms"),
        ("duration", [0.1234], f"123{NB}ms"),
        ("duration", [-0.02], f"-20.0{NB}ms"),
        ("duration", [0.9996], f"1.0{NB}s"),
        ("duration", [12345.6], f"12,346{NB}s"),
        ("ago", [0.9], "now"),
        ("ago", [-3], "now"),
        ("ago", [5.9], f"5{NB}s{NB}ago"),
        ("ago", [119], f"119{NB}s{NB}ago"),
        ("ago", [120], f"2{NB}min{NB}ago"),
        ("ago", [7200], f"2{NB}h{NB}ago"),
        ("ago", [900_000], f"10{NB}d{NB}ago"),
        ("className", [1, ["car", "bus"]], "bus"),
        ("className", [7, ["car", "bus"]], "class 7"),
        ("className", [-1, ["car", "bus"]], "nothing"),
        ("list", [[]], ""),
        ("list", [["a"]], "a"),
        ("list", [["a", "b", "c"]], "a, b and c"),
        ("many", [1, "camera"], "1 camera"),
        ("many", [6, "camera"], "6 cameras"),
    ],
)
def test_numbers_are_told_as_people_read_them(
    call_format: Callable[..., Any], name: str, values: list[Any], words: str
) -> None:
    assert call_format(name, *values) == words


@pytest.mark.parametrize(
    "name", ["count", "percent", "interval", "bytes", "times", "duration", "className", "clock"]
)
def test_nothing_to_measure_is_a_dash(call_format: Callable[..., Any], name: str) -> None:
    assert call_format(name, None) == "–"


def test_an_instant_has_its_date_unless_it_is_today(call_format: Callable[..., Any]) -> None:
    at_s = 1_700_000_000
    assert len(call_format("clock", at_s, at_s + 1)) == len("12:34:56")
    assert call_format("clock", at_s, at_s + 3 * 86400).startswith("2023-11-1")


def test_wilson_as_the_store_has_it(call_format: Callable[..., Any]) -> None:
    from ddnn.exits.intervals import compute_wilson_interval

    for hits, known in ((0, 5), (3, 5), (5, 5), (931, 1000)):
        assert call_format("wilson", hits, known) == pytest.approx(
            compute_wilson_interval(hits, known), abs=1e-6
        )
    assert call_format("wilson", 0, 0) is None


def run_history(page: Page, states: list[dict[str, Any]], result: str) -> Any:
    """The result of an expression about a History `history` that has seen these states."""
    script = """async (states) => {
        const { History } = await import('/static/history.js');
        const { filled } = await import('/static/series.js');
        const history = new History();
        for (const state of states) history.push({ answers: [], nodes: [], ...state });
        return RESULT;
    }"""
    return page.evaluate(script.replace("RESULT", result), states)


def make_totals(at_s: float, exits: dict[str, int], known: int = 0) -> dict[str, Any]:
    answered = {name: {"answered": count} for name, count in exits.items()}
    summary = {
        "answered": sum(exits.values()),
        "quality": {"degraded": 0},
        "known": known,
        "accuracy": 1.0 if known else None,
        "exits": answered,
    }
    return {"at_s": at_s, "summary": summary}


def test_a_label_that_is_taken_back_and_a_better_answer_count_once(page: Page) -> None:
    states = [
        make_totals(100.0, {"local": 4}, known=2),
        make_totals(101.0, {"local": 3, "cloud": 1}, known=1),  # a better answer; a label is gone
        make_totals(102.0, {"local": 4, "cloud": 1}, known=1),
    ]
    (bucket,) = run_history(page, states, "history.buckets()")
    assert (bucket["exits"], bucket["known"], bucket["correct"]) == ({"cloud": 1}, 0, 0)


def test_a_step_of_the_servers_clock_begins_a_new_history(page: Page) -> None:
    states = [make_totals(at_s, {"local": int(at_s) % 7}) for at_s in (70.0, 71.0, 4e7, 4e7 + 1)]
    assert run_history(page, states, "history.ticks.length") == 2
    assert run_history(page, states, "filled(history.buckets(), 5).length") == 1


def test_there_is_no_rate_while_nothing_new_is_read(page: Page) -> None:
    states = [make_totals(100.0 + second, {"local": 5 * second}) for second in range(5)]
    assert run_history(page, states, "history.rate(104.5)") == 5
    assert run_history(page, states, "history.rate(120)") is None


def test_morph_keeps_elements_focus_and_choices(page: Page) -> None:
    kept = page.evaluate(
        """async () => {
          const { h, morph } = await import("/static/dom.js");
          const place = document.body.appendChild(h("div"));
          const rows = (...keys) => keys.map((key) =>
            h("p", { "data-key": key }, h("input", { id: key }), key,
              h("details", {}, h("summary", {}, "more"))));
          morph(place, rows("a", "b", "c"));
          const b = place.querySelector("#b");
          b.focus();
          place.querySelectorAll("details")[1].open = true;
          morph(place, rows("x", "a2", "b", "d"));
          return {
            order: [...place.children].map((p) => p.dataset.key).join(" "),
            same: place.querySelector("#b") === b,
            focus: document.activeElement === b,
            open: b.parentElement.querySelector("details").open,
            text: place.textContent,
          };
        }"""
    )
    assert kept == {
        "order": "x a2 b d",
        "same": True,
        "focus": True,
        "open": True,
        "text": "xmorea2morebmoredmore",
    }


def test_what_is_placed_is_text(page: Page) -> None:
    markup = page.evaluate(
        """async () => {
          const { h } = await import("/static/dom.js");
          const hostile = '<img src=x onerror=alert(1)>"\\'';
          const made = h("p", { title: hostile, class: null, hidden: false }, hostile, null, "");
          return [made.children.length, made.title === hostile, made.textContent === hostile];
        }"""
    )
    assert markup == [0, True, True]


def test_the_samples_shown_include_the_newest_of_each_exit(page: Page) -> None:
    """They stay in their order, and are as many as before."""
    script = """async (exits) => {
        const { pickFew } = await import('/static/samples.js');
        return pickFew(exits.map((exit, i) => ({ i, answer: { exit } })), 4).map(({ i }) => i);
    }"""
    near = ["local"] * 4
    for exits, shown in (
        ([*near, "edge", "local", "cloud", "edge"], [0, 1, 4, 6]),
        (["cloud", *near, "edge"], [0, 1, 2, 5]),
        (["edge", "cloud", *near], [0, 1, 2, 3]),
        (near, [0, 1, 2, 3]),
        (["local", "cloud"], [0, 1]),
    ):
        assert page.evaluate(script, exits) == shown


def test_the_front_says_where_the_site_stands(page: Page) -> None:
    script = """async ([name, values]) => (await import('/static/front.js'))[name](...values)"""
    rows = [{"accuracy": a, "total_bytes": b} for a, b in ((0.8, 10), (0.9, 30), (0.95, 60))]
    for here, words in (
        ({"accuracy": 0.9, "total_bytes": 30}, "are on the front"),
        ({"accuracy": 0.85, "total_bytes": 40}, f"5.0 points below the front at 40.0{NB}B"),
    ):
        assert words in page.evaluate(script, ["standingOf", [rows, here]])
    assert page.evaluate(script, ["spread", [list(range(10)), 4]]) == [0, 3, 6, 9]
    exits = {"local": {"latency_p50_s": 0.01}, "edge": {"latency_p50_s": 0.03}}
    mean = page.evaluate(script, ["latencyOf", [{"local": 0.5, "edge": 0.5, "cloud": 0}, exits]])
    assert mean == pytest.approx(0.02)
    assert page.evaluate(script, ["latencyOf", [{"local": 0.5, "cloud": 0.5}, exits]]) is None
