"""`ddnn train`, `evaluate` and `calibrate` as a user has them: standard output, exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.commands import assert_one_line_error, parse_one_object, run

# ------------------------------------------------------------ train and evaluate


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of one's own: the colour says the class."""
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 2
    images = generator.integers(0, 80, (90, 3, 32, 32, 3), np.uint8)
    images[labels == 1, :, :, :, 0] += 150
    path = tmp_path_factory.mktemp("photos") / "photos.npz"
    np.savez(path, images=images, labels=labels, classes=np.array(["dark", "red"]))
    return path


@pytest.fixture(scope="module")
def trained_bundle(
    ddnn: list[str], photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("trained") / "bundle"
    done = run(
        [
            *ddnn,
            "train",
            "--data",
            f"npz:{photos}",
            "--out",
            str(out),
            "--devices",
            "3",
            "--steps",
            "6",
            "--bits",
            "4",
            "--json",
        ],
    )
    assert done.returncode == 0, done.stderr
    assert "training" in done.stderr  # progress
    table = [line.split()[1:3] for line in done.stderr.splitlines() if line.startswith("ddnn: ")]
    assert table[:3] == [["class", "samples"], ["dark", "31/7/7"], ["red", "31/7/7"]]
    return out, parse_one_object(done.stdout)


def test_train_then_evaluate(ddnn: list[str], photos: Path, trained_bundle: Any) -> None:
    bundle, summary = trained_bundle
    assert set(summary["validation_accuracy"]) == {"local", "edge", "cloud", "overall"}
    page = bundle.parent / "report.html"
    flags = ["--data", f"npz:{photos}", "--json", "--report", str(page)]
    done = run([*ddnn, "evaluate", str(bundle), *flags])
    assert done.returncode == 0, done.stderr
    report = parse_one_object(done.stdout)
    assert "What is taken for what" in page.read_text()
    assert np.sum(report["confusion"]) == report["samples"] == 14
    assert len(report["subsets"]) == 7
    more = {"reduction_jpeg", "device_accuracy", "score_type", "bundle", "front"}
    more |= {"classes", "confusion", "subsets", "samples_learned_from"}
    assert set(report) - more == {
        "accuracy",
        "accuracy_interval",
        "recall_interval",
        "majority",
        "recall",
        "exit_share",
        "bytes_per_sample_per_device",
        "raw_bytes",
        "jpeg_bytes",
        "reduction",
        "missing",
        "thresholds",
        "samples",
    }
    tiers = ["local", "edge", "cloud"]
    assert list(report["accuracy"]) == [*tiers, "overall"]
    assert list(report["exit_share"]) == tiers
    assert sum(report["exit_share"].values()) == pytest.approx(1)
    assert list(report["missing"]) == ["1", "2", "3"]
    assert report["missing"]["3"] is None  # of three devices, never all
    assert set(report["thresholds"]) == {"local", "edge"}
    assert report["thresholds"] == summary["thresholds"]
    assert report["raw_bytes"] == 32 * 32 * 3
    assert 10 < report["samples"] < 20  # 15 %
    sent = report["bytes_per_sample_per_device"]
    assert report["reduction"] == pytest.approx(report["raw_bytes"] / sent)
    per_score = {"float32": 4, "float16": 2, "uint8": 1}[report["score_type"]]
    manifest = json.loads((bundle / "manifest.json").read_text())
    feature_bytes = -(-int(np.prod(manifest["device_features"])) // 8)
    escalated = 1 - report["exit_share"]["local"]
    assert sent == pytest.approx(2 * per_score + escalated * feature_bytes)  # the paper's formula
    for value in [*report["accuracy"].values(), report["missing"]["1"], report["missing"]["2"]]:
        assert 0 <= value <= 1
    front = [(r["total_bytes_per_sample_per_device"], r["accuracy"]) for r in report["front"]]
    assert front == sorted(front)
    assert len({accuracy for _, accuracy in front}) == len(front)
    assert front[-1][1] >= report["accuracy"]["overall"]


def test_thresholds_by_a_budget_are_written(
    ddnn: list[str], photos: Path, trained_bundle: Any, tmp_path: Path
) -> None:
    """The bundle with new thresholds is a bundle: it evaluates, within the budget on these
    samples."""
    bundle = tmp_path / "bundle"
    shutil.copytree(trained_bundle[0], bundle)
    flags = f"--data npz:{photos} --budget cloud=0.2 --write --json".split()
    done = run([*ddnn, "calibrate", str(bundle), *flags])
    assert done.returncode == 0, done.stderr
    report = parse_one_object(done.stdout)
    assert report["cloud"] == report["exit_share"]["cloud"] <= 0.2
    assert (report["samples"], report["written"]) == (90, True)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["thresholds"] == report["thresholds"]
    assert_one_line_error(
        run([*ddnn, "calibrate", str(bundle), "--budget", "cloud=0.2"]), "not rendered"
    )


def test_what_cannot_be_evaluated_is_said_in_one_line(
    ddnn: list[str], photos: Path, trained_bundle: Any, tmp_path: Path
) -> None:
    bundle = str(trained_bundle[0])
    broken = tmp_path / "broken.npz"
    broken.write_bytes(photos.read_bytes()[:1000])
    many = tmp_path / "many.npz"
    generator = np.random.default_rng(0)
    np.savez(
        many,
        images=generator.integers(1, 99, (90, 3, 32, 32, 3), np.uint8),
        labels=np.arange(90) % 7,
    )
    for data, words in (
        ("nonsense", "unknown name"),
        ("npz:/nowhere.npz", "/nowhere.npz"),
        (f"npz:{broken}", "broken.npz"),
        (f"npz:{many}", "classes"),
    ):
        assert_one_line_error(run([*ddnn, "evaluate", bundle, "--data", data, "--json"]), words)
    assert_one_line_error(
        run([*ddnn, "evaluate", bundle, "--data", f"npz:{photos}", "--objects", "9"]), "--objects"
    )
    assert_one_line_error(
        run([*ddnn, "evaluate", bundle, "--data", f"npz:{photos}", "--objects", "x"]), "--objects"
    )
    assert_one_line_error(run([*ddnn, "evaluate", str(tmp_path)]), "is not a bundle")


def test_what_cannot_be_trained_is_said_in_one_line(
    ddnn: list[str], photos: Path, trained_bundle: Any, tmp_path: Path
) -> None:
    bundle, _ = trained_bundle
    before = {file: file.stat().st_mtime_ns for file in bundle.iterdir()}
    new = str(tmp_path / "new")
    for flags, words in (
        (["--out", str(bundle)], "holds a bundle already"),
        (["--out", new, "--data", "nonsense"], "unknown name"),
        (["--out", new, "--section", "sky=a:b"], "--section"),
        (["--out", new, "--devices", "4", "--steps", "1"], "views"),
    ):
        assert_one_line_error(run([*ddnn, "train", "--data", f"npz:{photos}", *flags]), words)
    assert {file: file.stat().st_mtime_ns for file in bundle.iterdir()} == before
    assert not (tmp_path / "new" / "manifest.json").exists()
    done = run([*ddnn, "train", "--configuration", "g", "--out", new])
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_help_has_examples(ddnn: list[str]) -> None:
    assert "Exit codes: 0 done" in run([*ddnn, "--help"]).stdout
    for command in ("train", "evaluate", "calibrate", "demo"):
        done = run([*ddnn, command, "--help"])
        assert done.returncode == 0
        assert f"  ddnn {command} " in done.stdout.partition("Examples:")[2]
