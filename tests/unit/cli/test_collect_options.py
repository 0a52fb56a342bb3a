"""The options of `ddnn collect` are checked before anything is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ddnn.cli import main
from ddnn.cli.collect import collect
from ddnn.cli.collect.command import CollectOptions, Recording
from ddnn.errors import ConfigError


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "out"),
        (["--out", "p", "--seconds", "5", "--samples", "5"], "expected one of them"),
        (["--out", "p", "--seconds", "7200"], "expected 1 to 3600"),
        (["--out", "p", "--samples", "0"], "expected at least 1"),
        (["--out", "p", "--label", "a/b"], "label 'a/b'"),
        (["--out", "p", "--label", "a", "--label", "b", "--seconds", "5"], "chosen by keys"),
        (["--out", "p", *[f"--label={n}" for n in range(10)]], "10 classes"),
        (["--out", "p", "--label", "a", "--label", "b", "--insecure"], "is no terminal"),
        (["--out", "p", "--every-s", "0"], "every_s"),
        (["--out", "p", "--site", "A B"], "site 'A B' is not an id"),
    ],
)
def test_wrong_options_are_refused(
    flags: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["collect", *flags])
    assert done.exit_code == 2
    assert words in done.output
    assert list(tmp_path.iterdir()) == []


def test_the_help_has_examples_and_every_option_is_explained() -> None:
    text = CliRunner().invoke(main, ["collect", "--help"]).output
    assert "ddnn collect --out photos --label person --seconds 60" in text
    assert all(param.help for param in collect.params)  # type: ignore[attr-defined]


def test_more_samples_than_a_device_records_are_refused() -> None:
    options = CollectOptions(out="p", samples=10_000, every_s=1.0)
    recording = Recording.__new__(Recording)
    recording.options, recording.period_s = options, 0.1
    with pytest.raises(ConfigError, match=r"--samples 10000 take 10000 s.* at most 3600"):
        recording._find_duration_s()
