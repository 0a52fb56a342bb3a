"""`ddnn rollout`: what is wrong is said before anything is sent."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ddnn.cli import main
from ddnn.errors import LinkError
from ddnn.exits.probation import Probation
from ddnn.machines.deployer import Deployer, State
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


rollout_module = importlib.import_module("ddnn.cli.rollout")


class Away:
    """The broker that a roll-out loses after the change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bundle: str, *, worse: bool) -> None:
        self.deployed: list[Deployer] = []
        self.bundle, self.worse = bundle, worse
        monkeypatch.setattr(rollout_module, "deploy", self.deploy)
        monkeypatch.setattr(rollout_module, "watch", self.watch)

    def deploy(self, deployer: Deployer, *_: object) -> None:
        if self.deployed:
            raise LinkError("the broker does not answer")
        self.deployed.append(deployer)
        deployer.state, deployer.before = State.DONE, "00000000"

    def watch(self, probation: Probation, _: object) -> None:
        if not self.worse:
            raise LinkError("the broker does not answer")
        probation.reason = "fewer are right"


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        (True, "fewer are right; could not go back to bundle 00000000: the broker does not"),
        (False, "it is in use, and was not watched: the broker does not answer"),
    ],
)
def test_what_is_known_is_reported_where_the_broker_goes_away(
    scenes_bundle: Path, monkeypatch: pytest.MonkeyPatch, worse: bool, words: str
) -> None:
    Away(monkeypatch, "", worse=worse)
    flags = ["--broker-host", "127.0.0.1", "--watch-minutes", "1", "--json"]
    done = CliRunner().invoke(main, ["rollout", str(scenes_bundle), *flags])
    assert done.exit_code == 2
    assert words in done.stderr
    assert json.loads(done.stdout)["watched"]
