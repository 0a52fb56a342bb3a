"""No answer that was kept is lost, whenever the process or the disk fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ddnn.errors import ConfigError
from ddnn.protocol.messages import Answer
from ddnn.runtime import answer_log
from ddnn.runtime.answer_log import FileAnswerLog, read_answers


def answer(sample: int, label: int = 0) -> Answer:
    return Answer(
        sample=sample,
        node="cam1",
        exit="device",
        label=label,
        probabilities=[0.25, 0.75],
        eta=0.8,
        members=["cam1"],
        missing=["cam2"],
        quality="degraded",
        expected_accuracy=None,
        bundle="ab12cd34",
        captured_at_s=1.5,
        answered_at_s=2.5,
        latency_s=1.0,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cam1.answers"


def test_what_is_kept_and_not_forgotten_is_pending_after_a_restart(path: Path) -> None:
    log = FileAnswerLog(path)
    assert log.pending == []
    for sample in range(5):
        log.keep(answer(sample))
    log.forget([1, 3, 99])
    assert FileAnswerLog(path).pending == [answer(s) for s in range(5)]  # may be sent again
    log = FileAnswerLog(path)
    log.keep(answer(7, label=1))
    log.forget(range(5))
    log.close()
    assert answer(7, label=1) in FileAnswerLog(path).pending


def test_the_file_is_emptied_when_nothing_is_pending(path: Path) -> None:
    log = FileAnswerLog(path)
    log.keep(answer(1))
    log.keep(answer(2))
    log.forget([1])
    assert path.stat().st_size > 0
    log.forget([2])
    assert path.stat().st_size == 0
    log.keep(answer(3))
    assert read_answers(path) == [answer(3)]


def test_the_newest_answer_to_a_sample_counts(path: Path) -> None:
    log = FileAnswerLog(path)
    log.keep(answer(1, label=0))
    log.keep(answer(1, label=1))
    assert FileAnswerLog(path).pending == [answer(1, label=1)]


def test_a_file_that_is_mostly_dead_is_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FileAnswerLog(path)
    log.keep(answer(0))
    line_bytes = path.stat().st_size
    monkeypatch.setattr(answer_log, "COMPACT_BYTES", 10 * line_bytes)
    log = FileAnswerLog(path)
    for sample in range(1, 50):  # one stays pending for ever, the others come and go
        log.keep(answer(sample))
        log.forget([sample])
        assert path.stat().st_size <= 12 * line_bytes
        assert answer(0) in read_answers(path)


class WrittenBytes:
    """What is written to files by each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        write, write_bytes = os.write, Path.write_bytes

        def count(file: int, data: bytes) -> int:
            self.count += len(data)
            return write(file, data)

        def count_whole(path: Path, data: bytes) -> int:
            self.count += len(data)
            return write_bytes(path, data)

        monkeypatch.setattr(os, "write", count)
        monkeypatch.setattr(Path, "write_bytes", count_whole)

    def take(self) -> int:
        count, self.count = self.count, 0
        return count


def test_each_confirmation_writes_little_and_all_of_them_no_more_than_was_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,000 answers are confirmed batch by batch while new ones come."""
    written = WrittenBytes(monkeypatch)
    log = FileAnswerLog(path)
    for sample in range(20_000):
        log.keep(answer(sample))
    kept_bytes = written.take()
    assert kept_bytes > answer_log.COMPACT_BYTES
    total = 0
    for first in range(0, 20_000, 100):
        log.keep(answer(20_000 + first))
        log.forget(range(first, first + 100))
        total += (at_once := written.take())
        assert at_once <= answer_log.COPY_BYTES + 2000
    assert total < 2 * kept_bytes
    log.close()
    newest = [answer(20_000 + first) for first in range(0, 20_000, 100)]
    assert [a for a in read_answers(path) if a.sample >= 20_000] == newest


def test_what_is_kept_during_a_copy_is_in_the_copy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_log, "COMPACT_BYTES", 1000)
    monkeypatch.setattr(answer_log, "COPY_BYTES", 700)
    log = FileAnswerLog(path)
    for sample in range(40):
        log.keep(answer(sample))
    log.forget(range(21))  # the copy begins
    assert path.with_suffix(".new").exists()
    files = {path.stat().st_ino}
    pending = set(range(21, 40))
    for sample in range(100, 110):
        log.keep(answer(sample))
        log.forget([sample - 79])
        pending = pending - {sample - 79} | {sample}
        crashed = {a.sample for a in read_answers(path)}
        assert pending <= crashed, "the old file is complete until the new one is"
    for sample in range(31, 38):
        log.forget([sample])
        pending.discard(sample)
        files.add(path.stat().st_ino)
        assert pending <= {a.sample for a in read_answers(path)}
    assert len(files) > 1
    assert path.stat().st_size < 30 * 400


def test_a_last_line_cut_at_any_byte_costs_only_itself(path: Path) -> None:
    log = FileAnswerLog(path)
    log.keep(answer(1))
    whole = path.read_bytes()
    log.keep(answer(2))
    both = path.read_bytes()
    for end in range(len(whole), len(both) + 1):
        path.write_bytes(both[:end])
        complete = end >= len(both) - 1  # only the line break is missing
        expected = [answer(1), answer(2)] if complete else [answer(1)]
        again = FileAnswerLog(path)
        assert again.pending == expected, end
        again.keep(answer(3))
        assert FileAnswerLog(path).pending == [*expected, answer(3)], end


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=200))
def test_junk_between_the_lines_is_passed_over(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.answers"
    good = msgspec.json.encode(answer(1))
    path.write_bytes(good + b"\n" + junk + b"\n" + msgspec.json.encode(answer(2)) + b"\n")
    assert [a.sample for a in read_answers(path)][:1] == [1]
    assert answer(2) in FileAnswerLog(path).pending


def test_a_full_disk_loses_nothing_that_was_kept_before_or_after(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FileAnswerLog(path)
    log.keep(answer(1))
    write = os.write
    for cut in (0, 7, 40):
        with monkeypatch.context() as full:
            full.setattr(os, "write", lambda file, data, n=cut: write(file, data[:n]))
            with pytest.raises(OSError, match="No space left"):
                log.keep(answer(2))
        log.keep(answer(3 + cut))
        assert read_answers(path)[0] == answer(1)
        assert answer(3 + cut) in read_answers(path)
        log = FileAnswerLog(path)


def test_answers_that_a_full_disk_refused_are_written_once_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FileAnswerLog(path)
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda file, data: write(file, data[:5]))
        for sample in range(3):
            with pytest.raises(OSError, match="No space left"):
                log.keep(answer(sample))
    log.forget([1])
    log.keep(answer(3))
    assert read_answers(path) == [answer(0), answer(2), answer(3)]


def fail_with(number: int) -> Any:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("name", ["write", "replace"])
def test_a_failed_copy_keeps_the_old_file_and_its_descriptor(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(answer_log, "COMPACT_BYTES", 1000)
    log = FileAnswerLog(path)
    for sample in range(20):
        log.keep(answer(sample))
    with monkeypatch.context() as full:
        full.setattr(os, name, fail_with(errno.ENOSPC))
        with pytest.raises(OSError, match="No space left"):
            log.forget(range(15))
        log.forget([15])  # a copy is not tried at every confirmation
    assert not path.with_suffix(".new").exists()
    log.keep(answer(20))
    assert {16, 17, 18, 19, 20} <= {a.sample for a in read_answers(path)}
    log.forget(range(16, 21))
    assert path.read_bytes() == b""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_does_not_keep_a_node_from_starting(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    first = FileAnswerLog(path)
    for sample in range(3):
        first.keep(answer(sample))
    first.close()
    with monkeypatch.context() as full:
        for name in ("write", "open", "mkdir", "replace"):
            full.setattr(os, name, fail_with(number))
        full.setattr(Path, "write_bytes", fail_with(number))
        log = FileAnswerLog(path)
        assert log.pending == [answer(0), answer(1), answer(2)]
        with pytest.raises(OSError, match=os.strerror(number)):
            log.keep(answer(3))
        log.forget([0])
    log.keep(answer(4))
    assert {1, 2, 3, 4} <= {a.sample for a in read_answers(path)}


def test_a_start_writes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = FileAnswerLog(path)
    log.keep(answer(1))
    log.close()
    written = WrittenBytes(monkeypatch)
    assert FileAnswerLog(path).pending == [answer(1)]
    assert written.take() == 0


def test_what_no_store_accepts_is_not_pending(path: Path) -> None:
    """A negative sample number, as a wrong clock made it, is refused with its whole batch."""
    good = msgspec.json.encode(answer(1))
    bad = [good.replace(b'"sample":1,', text) for text in (b'"sample":-5,', b'"sample":"1",')]
    path.parent.mkdir()
    path.write_bytes(b"\n".join([*bad, good, b""]))
    assert FileAnswerLog(path).pending == [answer(1)]


@pytest.mark.parametrize("what", ["a file in the way", "a directory in the way"])
def test_an_unusable_directory_is_refused_at_the_start(tmp_path: Path, what: str) -> None:
    path = tmp_path / "state" / "cam1.answers"
    if what == "a file in the way":
        path.parent.write_bytes(b"")
    else:
        path.mkdir(parents=True)
    with pytest.raises(ConfigError, match="give a writable --state directory"):
        FileAnswerLog(path)


def test_a_directory_that_cannot_be_written_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root may write anywhere, so pretend
    with pytest.raises(ConfigError, match="Permission denied"):
        FileAnswerLog(path)
