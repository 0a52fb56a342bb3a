"""No answer that was kept is lost, whenever the process or the disk fails."""

from __future__ import annotations

import os
from pathlib import Path

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


def test_it_is_rewritten_when_it_has_grown(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = FileAnswerLog(path)
    log.keep(answer(0))
    line_bytes = path.stat().st_size
    monkeypatch.setattr(answer_log, "REWRITE_BYTES", 10 * line_bytes)
    for sample in range(1, 50):  # one stays pending for ever, the others come and go
        log.keep(answer(sample))
        log.forget([sample])
        assert path.stat().st_size <= 12 * line_bytes
        assert answer(0) in read_answers(path)


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


def test_a_failed_rewrite_keeps_the_old_file_and_its_descriptor(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FileAnswerLog(path)
    log.keep(answer(1))

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("write_bytes", "replace"):
        with monkeypatch.context() as full:
            full.setattr(Path, name, refuse)
            with pytest.raises(OSError, match="No space left"):
                log.forget([1, 2])
        log.keep(answer(2))
        assert answer(2) in read_answers(path)
    log.forget([2])
    assert path.read_bytes() == b""


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

    monkeypatch.setattr(Path, "write_bytes", refuse)  # root may write anywhere, so pretend
    with pytest.raises(ConfigError, match="Permission denied"):
        FileAnswerLog(path)
