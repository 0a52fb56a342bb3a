"""`ddnn rollout`: what is wrong is said before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddnn.runtime.bundle import read_manifest
from tests.integration.commands import assert_one_line_error, run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-bundle", "--broker-host", "127.0.0.1"], ["is not a bundle", "ddnn train --out"]),
        (["BUNDLE", "--broker-host", "127.0.0.1", "--site", "all"], ["one at a time"]),
        (["BUNDLE", "--broker-host", "gateway"], ["--insecure"]),
        (["BUNDLE", "--site-file", "no-such.site"], ["no-such.site"]),
    ],
)
def test_a_wrong_call_is_one_line(
    ddnn: list[str], scenes_bundle: Path, arguments: list[str], words: list[str]
) -> None:
    named = [str(scenes_bundle) if a == "BUNDLE" else a for a in arguments]
    assert_one_line_error(run([*ddnn, "rollout", *named]), *words)


def test_a_bundle_that_does_not_compute_its_golden_outputs_is_not_sent(
    ddnn: list[str], scenes_bundle: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in scenes_bundle.iterdir():
        if file.is_file():
            (broken / file.name).write_bytes(file.read_bytes())
    section = read_manifest(broken)[0].sections["cam1"].file
    (broken / section).write_bytes(b"TFL3" * 100)
    done = run([*ddnn, "rollout", str(broken), "--broker-host", "127.0.0.1"])
    assert_one_line_error(done, section, "copy the bundle again")


def test_without_a_broker_the_remedy_is_named(ddnn: list[str], scenes_bundle: Path) -> None:
    flags = ["--broker-host", "127.0.0.1", "--broker-port", "9", "--json"]
    done = run([*ddnn, "rollout", str(scenes_bundle), *flags])
    assert done.returncode == 8
    assert "ddnn doctor" in done.stderr
    assert "Traceback" not in done.stderr
