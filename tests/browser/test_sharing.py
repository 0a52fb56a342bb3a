"""The layer that is shared among workers: what is promised, who holds what, and the decoding."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cloud_app.live import SharingView
from ddnn.protocol.messages import OffloadState, WorkerState
from tests.browser.chromium import Open, Problems, text, wait_for
from tests.browser.home import Home, node
from tests.browser.test_looks import FAINT_TEXT, TOO_WIDE
from tests.live_made import shared_among

SHARED = "#sharing"
ENOUGH = ".shared .enough"


def share(home: Home, told: OffloadState, age_s: float = 0.2, name: str = "edge") -> None:
    home.live.shared = [SharingView("home", name, age_s, told)]


def with_workers(told: OffloadState, **workers: WorkerState) -> OffloadState:
    return msgspec.structs.replace(told, workers={**told.workers, **workers})


def row(worker: str) -> str:
    return f".shared tr[data-key='{worker}']"


def cells(home_page: Any) -> list[tuple[str, str]]:
    """(number, what is said of it) of every shard."""
    shards = [" ".join(li.inner_text().split()) for li in home_page.locator(".shards li").all()]
    return [(words.split()[1], words.split(", ", 1)[1]) for words in shards]


def test_nothing_is_shown_while_nobody_shares(home: Home, opened: Open) -> None:
    home.answer(range(3))
    page = opened(home.url)
    wait_for(page, "#age.live")
    assert page.locator(SHARED).is_hidden()
    share(home, shared_among())
    page.locator(SHARED).wait_for()
    home.live.shared = []
    page.locator(SHARED).wait_for(state="hidden")


def test_the_plan_and_the_decoding_in_words(home: Home, opened: Open) -> None:
    share(home, shared_among(missing=["worker6", "worker10"]))
    page = opened(home.url)
    page.locator(SHARED).wait_for()
    said = text(page, SHARED)
    assert said.startswith("Shared layer edge_dense coded, code mds, shared by edge")
    promise = "Any 4 of the shards suffice: any 2 of 6 workers may vanish."
    assert f"6 shards on 6 workers. {promise}" in said
    assert text(page, f"{ENOUGH}.good") == "6 of 6 shards live: enough. Any 2 more may vanish."
    for fact in (
        "Samples decoded 1,234",
        "Computed at the edge itself 5",
        "Given up, a shallower exit answered 1",
        "Gathering the shards 6.3 ms",
        "Decoding 0.1 ms",
        "Not waited for in the last decoding worker6 and worker10",
    ):
        assert fact in said
    assert text(page, row("worker3")) == "worker3 shard 2 live 4.0 ms 100 used 90 10 missed 2"


@pytest.mark.parametrize(
    ("states", "tone", "words"),
    [
        (["lost"] + ["live"] * 5, "good", "5 of 6 shards live: enough. Any one more may vanish."),
        (
            ["lost", "stalled"] + ["live"] * 4,
            "warn",
            "4 of 6 shards live: just enough. No further worker may vanish.",
        ),
        (
            ["lost", "stalled", "faulty"] + ["live"] * 3,
            "bad",
            "3 of 6 shards live: too few. The edge computes the layer itself, or answers "
            "without it.",
        ),
    ],
)
def test_whether_the_live_ones_suffice_and_how_many_more_may_go(
    home: Home, opened: Open, states: list[str], tone: str, words: str
) -> None:
    home.answer(range(3))
    share(home, shared_among())
    page = opened(home.url)
    wait_for(page, f"{ENOUGH}.good", "Any 2 more")
    assert "All is well." in text(page, "#standing")
    share(home, shared_among(*states))
    wait_for(page, f"{ENOUGH}.{tone}", words)
    if tone == "bad":
        wait_for(page, "#standing", "Too few workers share edge_dense; answers go on.")
    else:
        assert "All is well." in text(page, "#standing")


def test_every_state_has_a_word_a_colour_and_a_shape_of_its_own(home: Home, opened: Open) -> None:
    states = ["live", "loading", "stalled", "lost", "faulty"]
    share(home, shared_among(*states))
    page = opened(home.url)
    page.locator(SHARED).wait_for()
    looks = set()
    for i, state in enumerate(states):
        assert f" {state} " in text(page, row(f"worker{i + 1}"))
        dot = page.locator(f"{row(f'worker{i + 1}')} .dot")
        shape = "['borderRadius', 'borderStyle', 'borderColor', 'backgroundColor', 'transform']"
        looks.add(dot.evaluate(f"e => {shape}.map(of => getComputedStyle(e)[of]).join()"))
    assert len(looks) == len(states)


def test_each_shard_is_a_cell_with_who_holds_it(home: Home, opened: Open) -> None:
    """A spare that stands in is what counts, not the one that it stands in for."""
    told = shared_among("live", "lost", "live", "loading", "live", "lost", missing=["worker5"])
    spare = WorkerState("live", [1], planned=False)
    share(home, with_workers(told, worker7=spare))
    page = opened(home.url)
    page.locator(SHARED).wait_for()
    assert cells(page) == [
        ("0", "worker1: in the last decoding"),
        ("1", "worker7: in the last decoding"),
        ("2", "worker3: in the last decoding"),
        ("3", "worker4: being loaded"),
        ("4", "worker5: there, not waited for"),
        ("5", "worker6: missing"),
    ]
    strips = [" ".join(s.inner_text().split())[:6] for s in page.locator(".strip").all()]
    assert [strip.split()[0] for strip in strips] == ["data", "parity"]
    assert page.locator(".shards .data").count() == 4
    assert text(page, row("worker7")).startswith("worker7 spare, shard 1 live")


def test_other_redundancies_are_told_as_what_they_are(home: Home, opened: Open) -> None:
    workers = {f"worker{i}": WorkerState("live", [2 * i, 2 * i + 1]) for i in range(6)}
    copies = {"redundancy": "replicate", "code": "replication", "n": 12, "k": 6, "tolerate": 1}
    share(home, shared_among(workers=workers, live_pieces=12, decodable=True, **copies))
    page = opened(home.url)
    page.locator(SHARED).wait_for()
    assert "One copy of each of the 6 blocks suffices: any 1 of 6 workers" in text(page, SHARED)
    assert text(page, row("worker5")).startswith("worker5 shards 10, 11 live")
    assert page.locator(".shards li").count() == 12
    sparse = {"redundancy": "coded-sparse", "code": "low_weight"}
    share(home, shared_among(**sparse))
    wait_for(page, SHARED, "coded-sparse, code low_weight")
    wait_for(page, ".strip", "mixed")
    assert page.locator(".shards .parity").count() == 6  # none is a block as it is
    share(home, shared_among(redundancy="none", code="uncoded", k=6, tolerate=0))
    wait_for(page, SHARED, "All are needed: no worker may vanish.")


def test_what_is_old_is_not_told_as_live(home: Home, opened: Open) -> None:
    share(home, shared_among(), age_s=6.0)
    page = opened(home.url)
    wait_for(page, f"{ENOUGH}.wait", "Not heard of for 6")
    assert "enough" not in text(page, ENOUGH)
    home.live.connect(False)
    page.locator(SHARED).wait_for(state="hidden")


def test_a_server_that_is_gone_makes_it_old(home: Home, opened: Open, problems: Problems) -> None:
    share(home, shared_among())
    page = opened(home.url)
    wait_for(page, f"{ENOUGH}.good", "enough")
    home.server.close()
    wait_for(page, f"{ENOUGH}.wait", "Not heard of for")
    problems.expect("ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE")


def test_in_a_demo_a_worker_is_killed_and_started_there(home: Home, opened: Open) -> None:
    home.live.shown += [node(f"worker{i + 1}", "worker") for i in range(6)]
    home.demo()
    share(home, shared_among())
    page = opened(home.url)
    page.locator(SHARED).get_by_role("button", name="Kill worker2").click()
    wait_for(page, "#said", "worker2 was killed.")
    assert home.live.made_demo.alive["worker2"] is False
    wait_for(page, "#node-rows .lost", "worker2")
    page.locator(SHARED).get_by_role("button", name="Start worker2").click()
    wait_for(page, "#said", "worker2 was started.")
    assert home.live.made_demo.alive["worker2"] is True
    wait_for(page, "#headline", "10 of 10")
    roles = page.locator("#node-rows th small").all_inner_texts()
    assert roles.count("worker") == 6
    home.live.made_demo = None  # no demo: nothing to press
    page.locator(f"{SHARED} button").first.wait_for(state="detached")


def test_very_many_workers_are_a_few_lines_and_a_number(home: Home, opened: Open) -> None:
    workers = {f"worker{i}": WorkerState("live", [i]) for i in range(1000)}
    share(home, shared_among(n=1000, k=998, workers=workers, live_pieces=1000, decodable=True))
    page = opened(home.url)
    wait_for(page, SHARED, "1,000 of 1,000 shards live: enough. Any 2 more may vanish.")
    assert "and 872 live workers more" in text(page, SHARED)
    assert page.locator(".shards").count() == 0
    assert page.locator(".shared tbody tr").count() == 128


@pytest.mark.parametrize(
    ("width", "scheme"), [(390, "light"), (390, "dark"), (768, "light"), (1280, "dark")]
)
def test_all_can_be_read_and_nothing_sticks_out(
    home: Home, opened: Open, width: int, scheme: str
) -> None:
    name = "a-very-long-name-" * 3 + "worker-thirteen"
    hostile = "<img src=x onerror=document.title='owned'>" + "x" * 20
    told = shared_among("live", "lost", "stalled", "loading", "faulty", "live", layer=hostile)
    much = WorkerState("live", list(range(6)), False, 999_999, 999_999, 123_456_789, 999_999, 999.0)
    home.live.shown += [node(f"worker{i + 1}", "worker") for i in range(6)]
    home.live.shown.append(node(name, "worker"))
    home.demo()
    told = msgspec.structs.replace(
        with_workers(told, **{name: much}), missing=[name], decoded=2**53, code=hostile
    )
    home.live.shared = [
        SharingView("home", "edge", 0.2, told),
        SharingView("home", name, 5.0, shared_among()),
    ]
    page = opened(home.url, width, scheme, reduced_motion="reduce")
    wait_for(page, SHARED, hostile)
    assert page.evaluate(FAINT_TEXT) == []
    assert page.evaluate(TOO_WIDE) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.title() == "ddnn"
