"""Wrong options of `ddnn pipeline` are refused before any work, with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ddnn.cli import main
from ddnn.cli.pipeline_options import SNAPSHOT_STEPS, PipelineDemoOptions, PipelineTrainOptions

TRAIN = ["pipeline", "train", "--out", "bundle"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([*TRAIN, "--workers", "some"], "expected announced, or a number"),
        ([*TRAIN, "--delay", "2", "--micro-batches", "4"], "expected one of them"),
        ([*TRAIN, "--batch", "0"], "batch"),
        ([*TRAIN, "--node", "Central"], "node"),
        ([*TRAIN, "--broker-host", "edge.lan"], "without a site file"),
        (["pipeline", "train"], "out"),
        (["pipeline", "demo", "--devices", "1,x"], "such as 1,1,10"),
        (["pipeline", "demo", "--devices", "1,0.5"], "from 1 to 1000"),
        (["pipeline", "demo", "--kill", "worker9@3"], "there are worker1, worker2"),
        (["pipeline", "demo", "--kill", "worker1"], "NODE@N"),
    ],
)
def test_wrong_options_are_refused(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_bundle_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").touch()
    result = CliRunner().invoke(main, ["pipeline", "train", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "holds a bundle" in result.stderr


def test_defaults_that_depend_on_other_options() -> None:
    request = PipelineTrainOptions(out="bundle", restore="consistent").make_request()
    assert request.global_every == SNAPSHOT_STEPS
    assert request.workers is None
    assert request.checkpoint == Path("bundle.checkpoint.npz").absolute()
    assert PipelineTrainOptions(out="bundle", workers="3").make_request().workers == 3
    assert PipelineDemoOptions(devices="1,1,10").factors == [1, 1, 10]


@pytest.mark.parametrize("command", ["train", "demo"])
def test_help_shows_examples(command: str) -> None:
    text = CliRunner().invoke(main, ["pipeline", command, "--help"]).output
    assert f"ddnn pipeline {command}" in text
