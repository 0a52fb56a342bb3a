"""Arrays as bytes, copies in parts, and what batches pass on: in any order, repeatedly, lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddnn.errors import LocalProtocolError, RemoteProtocolError
from ddnn.pipeline.blobs import TYPES, pack_array, pack_arrays, unpack_array, unpack_arrays
from ddnn.pipeline.copies import KEPT, CopyStore
from ddnn.pipeline.exchange import Exchange
from ddnn.pipeline.flows import Inbox, split_flow
from ddnn.pipeline.sources import Copy, Origin, Stamp
from ddnn.pipeline.transfers import FIRST_BYTES, LENGTH_BYTES, RETRY_S, Fetcher, Key, make_part
from ddnn.protocol.codec import encode
from ddnn.protocol.messages import MAX_MESSAGE_BYTES
from ddnn.protocol.train_messages import PART_BYTES, TrainAssignment

KEY = Key(3, Stamp(2, 40))


@pytest.mark.parametrize("name", sorted(TYPES))
def test_arrays_come_back_bit_for_bit(name: str) -> None:
    arrays = {"a": np.arange(6).reshape(2, 3).astype(name), "empty": np.zeros((0, 2), name)}
    back = unpack_arrays(pack_arrays(arrays))
    assert back.keys() == arrays.keys()
    for key, array in arrays.items():
        assert back[key].dtype == array.dtype
        np.testing.assert_array_equal(back[key], array)


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="complex128"):
        pack_arrays({"z": np.zeros(1, complex)})
    good = pack_array(np.arange(3.0))
    for cut in range(len(good)):
        with pytest.raises(RemoteProtocolError):
            unpack_array(good[:cut])
    with pytest.raises(RemoteProtocolError, match="expected one named x"):
        unpack_array(pack_arrays({"y": np.zeros(1)}))


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_arrays(data: bytes) -> None:
    try:
        unpack_arrays(data)
    except RemoteProtocolError:
        return


# ---------------------------------------------------------------------- copies


def test_the_newest_copies_of_each_layer_are_kept_and_those_pinned() -> None:
    store = CopyStore()
    store.pin("one", [Stamp(1, 10)])
    store.pin("another", [Stamp(1, 20)])
    for version in range(0, 60, 10):
        store.add(4, Stamp(1, version), Origin.LIVE, b"")
    versions = [copy.stamp.version for copy in store.list_copies()]
    assert versions == [10, 20, *range(60 - 10 * KEPT, 60, 10)]
    store.pin("one", [])
    store.pin("another", [])
    assert len(store.list_copies()) == KEPT


def test_a_stage_begins_with_the_copies_that_it_was_told_to_fetch_or_not_at_all() -> None:
    """Also where the node holds newer copies of the same layer, which are not to be used."""
    assignment = TrainAssignment(["a"], [(0, 5)], 4, 9, 0, 1, sources=[(4, "b", 1, 4)])
    exchange = Exchange("a")
    for version in (6, 8):
        exchange.store.add(4, Stamp(1, version), Origin.LIVE, b"new")
    with pytest.raises(LocalProtocolError, match="a has no copy of layer 4 of"):
        exchange.find_states(assignment, None)
    assert exchange.fetch_sources(assignment, None) == {Key(4, Stamp(1, 4))}
    exchange.store.add(4, Stamp(1, 4), Origin.CHAIN, b"old")
    assert exchange.find_states(assignment, None) == ({4: b"old"}, {})


def test_a_future_that_is_over_is_dropped() -> None:
    store = CopyStore()
    store.add(4, Stamp(1, 30), Origin.LIVE, b"")
    store.add(4, Stamp(2, 30), Origin.LIVE, b"")
    store.drop_after(20, term=2)
    assert store.list_copies() == [Copy(4, Stamp(2, 30), Origin.LIVE)]


# --------------------------------------------------------------------- fetching


def fetch(blob: bytes, lose=lambda number: False, repeat: int = 1) -> tuple[bytes, float]:
    """Fetch a blob over a link that loses some messages; what came, and the seconds."""
    fetcher, now_s, number = Fetcher("worker2"), 0.0, 0
    fetcher.start(KEY, "worker1", Origin.CHAIN)
    for _ in range(1000):
        for _, message in fetcher.ask(now_s):
            number += 1
            if lose(number):
                continue
            part = make_part(message, "worker1", blob)
            now_s += 0.01
            for _ in range(repeat):
                fetched = fetcher.take(part, now_s)
                if fetched is not None:
                    assert (fetched.key, fetched.origin) == (KEY, Origin.CHAIN)
                    return fetched.blob, now_s
        due_s = fetcher.due_s()
        now_s = max(now_s, due_s if due_s is not None else now_s)
    raise AssertionError("not fetched")


@pytest.mark.parametrize("size", [1, LENGTH_BYTES, LENGTH_BYTES + 1, 3 * LENGTH_BYTES])
def test_a_copy_comes_in_parts(size: int) -> None:
    blob = np.random.default_rng(size).bytes(size)
    assert fetch(blob)[0] == blob
    assert fetch(blob, repeat=2)[0] == blob


def test_lost_parts_are_asked_for_again() -> None:
    blob = np.random.default_rng(1).bytes(3 * LENGTH_BYTES)
    came, seconds = fetch(blob, lose=lambda number: number in (1, 3, 4))
    assert came == blob
    assert seconds >= 3 * RETRY_S


def test_a_copy_that_is_not_to_be_had_is_reported() -> None:
    fetcher = Fetcher("worker2")
    fetcher.start(KEY, "worker1", Origin.CHAIN)
    [(to, message)] = fetcher.ask(0.0)
    assert to == "worker1"
    assert fetcher.take(make_part(message, "worker9", b"forged"), 1.0) is None
    assert fetcher.take(make_part(message, "worker1", None), 1.0).blob is None
    assert len(fetcher) == 0


def test_the_rate_of_the_link_is_measured() -> None:
    fetcher = Fetcher("worker2")
    fetcher.start(KEY, "worker1", Origin.CHAIN)
    [(_, message)] = fetcher.ask(5.0)
    fetcher.take(make_part(message, "worker1", bytes(2 * LENGTH_BYTES)), 5.5)
    assert fetcher.rate_bytes_per_s == pytest.approx(FIRST_BYTES / 0.5)


def test_a_part_is_asked_for_less_and_less_often() -> None:
    """Parts that are asked for again wait behind each other on a thin link."""
    fetcher = Fetcher("worker2")
    fetcher.start(KEY, "worker1", Origin.CHAIN)
    asked = [s for s in range(200) if fetcher.ask(float(s))]
    assert asked[:6] == [0, 1, 3, 7, 15, 31]
    assert len(asked) < 12


# ------------------------------------------------------------------------ flows


@settings(max_examples=5, deadline=None)
@given(st.randoms(), st.integers(0, 3))
def test_parts_are_joined_in_any_order_and_repeated(random, extra: int) -> None:
    blob = np.random.default_rng(extra).bytes(2 * PART_BYTES + extra)
    flows = split_flow("edge", 1, 7, "forward", blob)
    assert all(len(encode(flow)) <= MAX_MESSAGE_BYTES for flow in flows)
    arriving = [*flows, flows[0]]
    random.shuffle(arriving)
    inbox = Inbox()
    for flow in arriving:
        inbox.take(flow)
    assert inbox.get("forward", 7) == blob
    assert inbox.get("backward", 7) is None
    inbox.forget(7, "forward")
    assert inbox.get("forward", 7) is None


def test_what_had_to_be_made_first_says_nothing_of_the_link() -> None:
    """Nor does the time that a message and its answer take without their bytes."""
    fetcher = Fetcher("worker1")
    blob, trip_s, rate = bytes(60_000), 0.005, 1e7
    now_s = 0.0
    for version, (size, made_s) in enumerate([(60_000, 2.0), (100, 0.0), (60_000, 0.0)]):
        key = Key(3, Stamp(1, version))
        fetcher.start(key, "central", Origin.CHAIN)
        ((_, message),) = fetcher.ask(now_s)
        now_s += trip_s + size / rate + made_s
        part = make_part(message, "central", blob[:size], waited=made_s > 0)
        assert fetcher.take(part, now_s) is not None
        assert bool(fetcher.rate_bytes_per_s) == (version == 2)
    assert fetcher.rate_bytes_per_s == pytest.approx(rate, rel=0.05)
