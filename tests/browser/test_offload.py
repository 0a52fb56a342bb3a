"""The work that goes to workers: what is promised, who holds what, and how it goes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cloud_app.views import OffloadView
from ddnn.protocol.offload_state import (
    Alternative,
    Alternatives,
    Axis,
    OffloadState,
    PieceGroup,
    WorkerState,
)
from tests.browser.chromium import Open, Problems, text, wait_for
from tests.browser.home import Home, node
from tests.browser.test_looks import FAINT_TEXT, TOO_WIDE, assert_readable
from tests.site_builder import make_offload

OFFLOAD = "#offload"
ALTERNATIVES = ".alternatives"
ENOUGH = ".offload .enough"


def offload(home: Home, state: OffloadState, age_s: float = 0.2) -> None:
    home.live.offloaded = [OffloadView("home", "edge", age_s, state)]


def add_workers(state: OffloadState, **workers: WorkerState) -> OffloadState:
    return msgspec.structs.replace(state, workers={**state.workers, **workers})


def row(worker: str) -> str:
    return f".offload tr[data-key='{worker}']"


def cells(home_page: Any) -> list[tuple[str, str]]:
    """(number, what is said of it) of every piece."""
    pieces = [" ".join(li.inner_text().split()) for li in home_page.locator(".pieces li").all()]
    return [(words.split()[1], words.split(", ", 1)[1]) for words in pieces]


def test_nothing_is_shown_while_no_work_goes_to_workers(home: Home, open_page: Open) -> None:
    home.answer(range(3))
    page = open_page(home.url)
    wait_for(page, "#age.live")
    assert page.locator(OFFLOAD).is_hidden()
    offload(home, make_offload())
    page.locator(OFFLOAD).wait_for()
    home.live.offloaded = []
    page.locator(OFFLOAD).wait_for(state="hidden")


def test_the_plan_and_how_it_goes_in_words(home: Home, open_page: Open) -> None:
    offload(
        home,
        make_offload(missing=["worker6", "worker10"], counts={"contradictions": 7, "retries": 0}),
    )
    page = open_page(home.url)
    page.locator(OFFLOAD).wait_for()
    said = text(page, OFFLOAD)
    assert said.startswith("Work offloaded to workers layer edge_dense coding, for edge")
    assert "6 shards on 6 workers. Any 4 suffice: any 2 of 6 workers may vanish." in said
    words = "6 of 6 pieces live: enough. Any 2 workers more may vanish."
    assert text(page, f"{ENOUGH}.good") == words
    for fact in (
        "Samples combined from results 1,234",
        "Computed at the edge itself 5",
        "Given up, a shallower exit answered 1",
        "Contradictions 7",
        "Gathering the results 6.3 ms",
        "Combining them 0.1 ms",
        "Not waited for in the last combination worker6 and worker10",
    ):
        assert fact in said
    assert "Retries" not in said  # none
    assert text(page, row("worker3")) == "worker3 piece 2 live 4.0 ms 100 used 90 10 missed 2"


@pytest.mark.parametrize(
    ("states", "tone", "words"),
    [
        (
            ["lost"] + ["live"] * 5,
            "good",
            "5 of 6 pieces live: enough. Any one worker more may vanish.",
        ),
        (
            ["lost", "stalled"] + ["live"] * 4,
            "warn",
            "4 of 6 pieces live: just enough. No further worker may vanish.",
        ),
        (
            ["lost", "stalled", "faulty"] + ["live"] * 3,
            "bad",
            "3 of 6 pieces live: too few. The edge computes them itself, or answers without them.",
        ),
    ],
)
def test_whether_the_live_ones_suffice_and_how_many_more_may_go(
    home: Home, open_page: Open, states: list[str], tone: str, words: str
) -> None:
    home.answer(range(3))
    offload(home, make_offload())
    page = open_page(home.url)
    wait_for(page, f"{ENOUGH}.good", "Any 2 workers more")
    assert "All is well." in text(page, "#standing")
    offload(home, make_offload(*states))
    wait_for(page, f"{ENOUGH}.{tone}", words)
    if tone == "bad":
        wait_for(page, "#standing", "Too few workers compute layer edge_dense; answers continue.")
    else:
        assert "All is well." in text(page, "#standing")


def test_every_state_has_a_word_a_colour_and_a_shape_of_its_own(
    home: Home, open_page: Open
) -> None:
    states = ["live", "loading", "stalled", "lost", "faulty"]
    offload(home, make_offload(*states))
    page = open_page(home.url)
    page.locator(OFFLOAD).wait_for()
    looks = set()
    for i, state in enumerate(states):
        assert f" {state} " in text(page, row(f"worker{i + 1}"))
        dot = page.locator(f"{row(f'worker{i + 1}')} .dot")
        shape = "['borderRadius', 'borderStyle', 'borderColor', 'backgroundColor', 'transform']"
        looks.add(dot.evaluate(f"e => {shape}.map(of => getComputedStyle(e)[of]).join()"))
    assert len(looks) == len(states)


def test_each_piece_is_a_cell_with_its_holder(home: Home, open_page: Open) -> None:
    """A spare that stands in is what counts, not the one that it stands in for."""
    state = make_offload("live", "lost", "live", "loading", "live", "lost", missing=["worker5"])
    spare = WorkerState("live", [1], planned=False)
    state = msgspec.structs.replace(state, sources=["worker1", "worker7", "worker3", "", "", ""])
    offload(home, add_workers(state, worker7=spare))
    page = open_page(home.url)
    page.locator(OFFLOAD).wait_for()
    assert cells(page) == [
        ("0", "worker1: in the last combination"),
        ("1", "worker7: in the last combination"),
        ("2", "worker3: in the last combination"),
        ("3", "worker4: being loaded"),
        ("4", "worker5: there, not waited for"),
        ("5", "worker6: missing"),
    ]
    strips = [" ".join(s.inner_text().split())[:6] for s in page.locator(".strip").all()]
    assert [strip.split()[0] for strip in strips] == ["data", "parity"]
    assert page.locator(".pieces.group0 li").count() == 4
    assert text(page, row("worker7")).startswith("worker7 spare, piece 1 live")


def test_the_groups_are_the_rooms(home: Home, open_page: Open) -> None:
    """The page shows the room's names and sentence, whatever room it is."""
    workers = {f"worker{i}": WorkerState("live", [2 * i, 2 * i + 1]) for i in range(6)}
    groups = [PieceGroup(f"group {i}", 4 * i, 4 * i + 4) for i in range(3)]
    promise = "One student of each group suffices."
    fields: dict[str, Any] = {"room": "students", "title": "the whole network"}
    offload(
        home,
        make_offload(
            workers=workers, pieces=12, live_pieces=12, groups=groups, description=promise, **fields
        ),
    )
    page = open_page(home.url)
    page.locator(OFFLOAD).wait_for()
    assert f"the whole network students, for edge {promise}" in text(page, OFFLOAD)
    assert text(page, row("worker5")).startswith("worker5 pieces 10, 11 live")
    assert page.locator(".pieces li").count() == 12
    assert page.locator(".strip .note").all_inner_texts() == ["group 0", "group 1", "group 2"]
    offload(home, make_offload(groups=[]))  # without groups: one strip
    wait_for(page, ".strip .note", "pieces")
    assert page.locator(".pieces li").count() == 6


def test_replicas_are_cells_with_their_holders_names(home: Home, open_page: Open) -> None:
    """Who won, who was not waited for, who is missing, whose place a spare has taken."""
    states = ["live", "live", "lost", "live", "lost", "live", "live", "live"]
    workers = {
        f"worker{i + 1}": WorkerState(state, [i // 3], answered=9, used=5, late=4)
        for i, state in enumerate(states)
    }
    workers["spare"] = WorkerState("live", [1], planned=False)
    names = [
        "group 0: 24 filters, wrn-16-1",
        "group 1: 16 filters, wrn-10-1",
        "group 2: 24 filters",
    ]
    fields: dict[str, Any] = {
        "room": "students",
        "title": "section edge",
        "description": "8 workers in 3 groups: the first answer of each is used. Every portion "
        "arrives with probability 0.9880.",
        "groups": [PieceGroup(name, k, k + 1) for k, name in enumerate(names)],
        "sources": ["worker2", "spare", ""],
        "accuracy": {"edge": 0.93, "cloud": 0.955},
        "combined_partly": 7,
    }
    offload(home, make_offload(pieces=3, live_pieces=3, spare_workers=1, workers=workers, **fields))
    page = open_page(home.url)
    page.locator(OFFLOAD).wait_for()
    assert page.locator(".pieces li").all_text_contents() == [
        "piece 0, worker1: there, not waited for",
        "piece 0, worker2: in the last combination",
        "piece 0, worker3: missing",
        "piece 1, spare: in the last combination",
        "piece 1, worker4: there, not waited for",
        "piece 1, worker6: there, not waited for",
        "piece 2, worker7: there, not waited for",
        "piece 2, worker8: there, not waited for",
    ]
    said = text(page, OFFLOAD)
    for fact in (
        "Every portion arrives with probability 0.9880.",
        "Of them without some pieces 7",
        "Accuracy at edge with these pieces 93.0 %",
        "Accuracy at cloud with these pieces 95.5 %",
    ):
        assert fact in said


def test_what_is_old_is_not_shown_as_live(home: Home, open_page: Open) -> None:
    offload(home, make_offload(), age_s=6.0)
    page = open_page(home.url)
    wait_for(page, f"{ENOUGH}.wait", "No report for 6")
    assert "enough" not in text(page, ENOUGH)
    home.live.connect(False)
    page.locator(OFFLOAD).wait_for(state="hidden")


def test_a_server_that_is_gone_makes_it_old(
    home: Home, open_page: Open, problems: Problems
) -> None:
    offload(home, make_offload())
    page = open_page(home.url)
    wait_for(page, f"{ENOUGH}.good", "enough")
    home.server.close()
    wait_for(page, f"{ENOUGH}.wait", "No report for")
    problems.expect(
        "ERR_(CONNECTION_REFUSED|INCOMPLETE_CHUNKED_ENCODING|CONTENT_LENGTH_MISMATCH|EMPTY_RESPONSE)"
    )


def test_in_a_demo_a_worker_is_killed_and_started_there(home: Home, open_page: Open) -> None:
    home.live.shown += [node(f"worker{i + 1}", "worker") for i in range(6)]
    home.demo()
    offload(home, make_offload())
    page = open_page(home.url)
    page.locator(OFFLOAD).get_by_role("button", name="Kill worker2").click()
    wait_for(page, "#said", "worker2 was killed.")
    assert home.live.demo.alive["worker2"] is False
    wait_for(page, "#node-rows .lost", "worker2")
    page.locator(OFFLOAD).get_by_role("button", name="Start worker2").click()
    wait_for(page, "#said", "worker2 was started.")
    assert home.live.demo.alive["worker2"] is True
    wait_for(page, "#headline", "10 of 10")
    roles = page.locator("#node-rows th small").all_inner_texts()
    assert roles.count("worker") == 6
    home.live.demo = None  # no demo: nothing to press
    page.locator(f"{OFFLOAD} button").first.wait_for(state="detached")


def test_very_many_workers_are_a_few_lines_and_a_number(home: Home, open_page: Open) -> None:
    workers = {f"worker{i}": WorkerState("live", [i]) for i in range(1000)}
    offload(home, make_offload(pieces=1000, workers=workers, live_pieces=1000, spare_workers=2))
    page = open_page(home.url)
    wait_for(page, OFFLOAD, "1,000 of 1,000 pieces live: enough. Any 2 workers more may vanish.")
    assert "and 872 live workers more" in text(page, OFFLOAD)
    assert page.locator(".pieces").count() == 0
    assert page.locator(".offload tbody tr").count() == 128


def test_other_plans_are_marks_and_rows_of_a_table(home: Home, open_page: Open) -> None:
    axes = [Axis("latency", "s"), Axis("P(full)", "share"), Axis("memory of students", "bytes")]
    points = [
        Alternative("8 × wrn-10-1", [0.125, 0.4305, 2_400_000.0]),
        Alternative("3 × wrn-16-1, 5 × wrn-10-1", [0.25, 0.9, 1_400_000.0], current=True),
        Alternative("8 × wrn-16-2", [0.75, 0.9999, 700_000.0]),
    ]
    state = make_offload(alternatives=Alternatives("Groupings that none beats", axes, points))
    offload(home, state)
    page = open_page(home.url)
    page.locator(ALTERNATIVES).wait_for()
    page.locator(f"{ALTERNATIVES} summary").click()
    rows = [" ".join(row.split()) for row in page.locator(f"{ALTERNATIVES} tr").all_inner_texts()]
    assert rows[0] == "No. latency P(full) memory of students Plan"
    assert rows[2] == "2 250 ms 90.00 % 1.4 MB 3 × wrn-16-1, 5 × wrn-10-1 (in use)"
    marks = [mark.bounding_box() for mark in page.locator(f"{ALTERNATIVES} rect").all()]
    assert [mark["x"] for mark in marks] == sorted(mark["x"] for mark in marks), "faster: left"
    assert [mark["y"] for mark in marks] == sorted((mark["y"] for mark in marks), reverse=True)
    assert marks[0]["width"] > marks[1]["width"] > marks[2]["width"]
    assert page.locator(f"{ALTERNATIVES} rect.current").count() == 1
    assert page.evaluate(FAINT_TEXT) == []
    assert page.evaluate(TOO_WIDE) == []
    offload(home, make_offload(alternatives=Alternatives("", axes, points[:1])))
    page.locator(ALTERNATIVES).wait_for(state="detached")


@pytest.mark.parametrize(
    ("width", "scheme"), [(390, "light"), (390, "dark"), (768, "light"), (1280, "dark")]
)
def test_all_can_be_read_and_nothing_sticks_out(
    home: Home, open_page: Open, width: int, scheme: str
) -> None:
    name = "a-very-long-name-" * 3 + "worker-thirteen"
    hostile = "<img src=x onerror=document.title='owned'>" + "x" * 20
    state = make_offload("live", "lost", "stalled", "loading", "faulty", "live", title=hostile)
    much = WorkerState(
        "live", list(range(6)), False, 999_999, 999_999, 123_456_789, 999_999, 999.0, 0.9712, 1e7
    )
    home.live.shown += [node(f"worker{i + 1}", "worker") for i in range(6)]
    home.live.shown.append(node(name, "worker"))
    home.demo()
    state = msgspec.structs.replace(
        add_workers(state, **{name: much}),
        missing=[name],
        combined=2**53,
        description=hostile,
        room=hostile,
        groups=[PieceGroup(hostile, 0, 6)],
        counts={hostile: 1},
        alternatives=Alternatives(
            hostile[:64],
            [Axis(hostile[:64], "s"), Axis(hostile[:64], "count"), Axis("memory", "bytes")],
            [Alternative(hostile * 8, [1e3 * i, -1e15 * i, 1e12]) for i in range(24)],
        ),
    )
    home.live.offloaded = [
        OffloadView("home", "edge", 0.2, state),
        OffloadView("home", name, 5.0, make_offload()),
    ]
    page = open_page(home.url, width, scheme, reduced_motion="reduce")
    wait_for(page, OFFLOAD, hostile)
    page.locator(f"{ALTERNATIVES} summary").click()
    assert_readable(page, width)
    assert page.title() == "ddnn"
