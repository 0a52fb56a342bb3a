"""Every sum of the store equals a recount, whatever the order, the batches and the repeats."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_app.store import Record, Store
from ddnn.exits.answers import choose_better
from ddnn.exits.hierarchy import EXITS
from ddnn.protocol.messages import Answer
from tests.answer_builder import make_answer as make
from tests.contracts.store_recount import (
    assert_same,
    clear,
    flatten,
    flatten_series,
    recount,
    recount_series,
    rows,
)

CAMS = ["cam1", "cam2", "cam3"]
SITES = ["home", "shop"]


@st.composite
def tagged_answers(draw: st.DrawFn) -> tuple[str, Answer]:
    members = draw(st.integers(0, 3))
    answer = make(
        draw(st.integers(1, 4)),
        node=draw(st.sampled_from(["edge", "cam1"])),
        exit=draw(st.sampled_from(EXITS)),
        label=draw(st.integers(-1, 1)),
        truth=draw(st.sampled_from([None, -1, 0, 1])),
        members=CAMS[:members],
        missing=CAMS[members:],
        quality="full" if members == 3 else "degraded",
        late=draw(st.booleans()),
        expected_accuracy=draw(st.sampled_from([None, 0.5, 0.97])),
        answered_at_s=draw(st.floats(0, 8000)),
        latency_s=draw(st.floats(-1, 40)),
        payload_bytes=draw(st.integers(0, 10**9)),
        wire_bytes=draw(st.integers(0, 10**9)),
    )
    return draw(st.sampled_from(SITES)), answer


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_order_any_batches_any_repeats_end_the_same(
    reused_store: Store, data: st.DataObject
) -> None:
    """With labels by persons between them: the last one holds, whatever answer comes after it."""
    store = reused_store
    clear(store)
    said = data.draw(st.lists(tagged_answers(), min_size=1, max_size=12))
    best: dict[tuple[str, int], Answer] = {}
    first: dict[tuple[str, int], float] = {}
    for site, answer in said:
        key = (site, answer.sample)
        best[key] = choose_better(best.get(key, answer), answer)
        first[key] = min(first.get(key, answer.answered_at_s), answer.answered_at_s)
    repeated = said + data.draw(st.lists(st.sampled_from(said), max_size=6))
    order = data.draw(st.permutations(repeated))
    size = data.draw(st.integers(1, 5))
    labels: dict[tuple[str, int], int | None] = {}
    counted: dict[tuple[str, str], int] = {}
    for start in range(0, len(order), size):
        some = order[start : start + size]
        store.save(some)
        if data.draw(st.booleans()):
            site, answer = data.draw(st.sampled_from(some))
            label = data.draw(st.sampled_from([None, -1, 0, 1]))
            labels[site, answer.sample] = label
            assert store.set_label(site, answer.sample, label, "ada", 5.0).labelled == label
        counters = store.count_samples()
        assert all(counters.get(key, 0) >= count for key, count in counted.items())
        counted = counters
    expected = {
        key: Record(key[0], answer, first[key], labels.get(key)) for key, answer in best.items()
    }
    assert rows(store) == expected
    everything = store.list_newest(10**6)
    assert_same(flatten(store.summarize()), recount(everything))
    assert_same(flatten(store.summarize(last=2)), recount(everything[:2]))
    assert sum(counted.values()) == len(expected)
    assert sum(of.samples for of in store.read_histograms().values()) == len(expected)
    for step_s in (60, 120, 3600):
        for site in (None, *SITES):
            own = [record for record in everything if site in (None, record.site)]
            assert_same(
                flatten_series(store.read_series(0, 8000, step_s, site)),
                recount_series(own, step_s),
            )
    for site in SITES:
        own = [record for record in everything if record.site == site]
        assert_same(flatten(store.summarize(site)), recount(own))
        assert_same(flatten(store.summarize(site, last=2)), recount(own[:2]))
