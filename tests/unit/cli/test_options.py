"""The keys of `ddnn train`, `plan` and `demo`: flag over environment over TOML file."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from ddnn.adapters.command import read_config
from ddnn.cli import main
from ddnn.cli.demo_options import DemoOptions
from ddnn.cli.observer import SITE_KEYS
from ddnn.cli.plan import PlanOptions
from ddnn.cli.train import TrainOptions
from ddnn.errors import ConfigError

COMMANDS = {"train": TrainOptions, "plan": PlanOptions, "demo": DemoOptions}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_each_key_of_the_schema_is_a_flag_with_a_help_text(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    flags = {param.opts[0]: param for param in command.params if isinstance(param, click.Option)}
    keys = {field.encode_name for field in msgspec.structs.fields(COMMANDS[name])}
    assert {"--" + key.replace("_", "-") for key in keys} <= set(flags)
    assert all(param.help for param in flags.values())
    assert f"  ddnn {name} " in CliRunner().invoke(main, [name, "--help"]).output


def test_flags_override_the_environment_which_overrides_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "demo.toml", 'rate = 5\nsamples = 7\nseed = 1\nkill = ["cam1@2"]\n')
    environ = {"DDNN_DEMO_SAMPLES": "8", "DDNN_DEMO_SEED": "2", "DDNN_SEED": "9"}
    flags = {"seed": "3", "kill": (), "headless": None}
    options = read_config(DemoOptions, flags, environ, file, prefix="DDNN_DEMO_")
    assert (options.rate_hz, options.samples, options.seed) == (5.0, 8, 3)
    assert (options.kill, options.headless) == (("cam1@2",), False)


def test_the_environment_gives_several_values_and_bools() -> None:
    environ = {
        "DDNN_TRAIN_EDGE_DENSE": "64,32",
        "DDNN_TRAIN_OWN_WEIGHTS": "true",
        "DDNN_TRAIN_PRUNE": "edge/a,edge/b",
        "DDNN_DATA": "/the/directory/of/data/sets",  # of ddnn.data, no key of `ddnn train`
    }
    options = read_config(TrainOptions, {"out": "x"}, environ, prefix="DDNN_TRAIN_")
    assert (options.edge_dense, options.own_weights) == ((64, 32), True)
    assert (options.prune, options.data) == (("edge/a", "edge/b"), "scenes5")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_key_of_the_file_is_refused(name: str, tmp_path: Path) -> None:
    file = write(tmp_path / "keys.toml", 'colour = "red"\n')
    result = CliRunner().invoke(main, [name, "--config", str(file)])
    assert result.exit_code == ConfigError.exit_code
    assert result.stderr.startswith("error: unknown key 'colour'; known: ")


def test_the_file_of_plan_may_hold_the_brokers_keys(tmp_path: Path) -> None:
    file = write(
        tmp_path / "plan.toml",
        'bundle = "/nowhere"\nworkers = "announced"\nbroker_host = "edge.lan"\nsite = "shop"\n',
    )
    result = CliRunner().invoke(main, ["plan", "--config", str(file)])
    assert "/nowhere is not a bundle" in result.stderr
    assert set(SITE_KEYS).isdisjoint(PlanOptions.__struct_fields__)


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("train", [], "out"),
        ("train", ["--out", "x", "--configuration", "g"], "configuration"),
        ("train", ["--out", "x", "--edge-dense", "0"], "edge_dense"),
        ("plan", ["--bundle", "x"], "workers"),
        ("plan", ["--bundle", "x", "--workers", "3", "--redundancy", "prayer"], "one of none"),
        ("demo", ["--broker", "pigeon"], "broker"),
        ("demo", ["--http-port", "70000"], "http_port"),
        ("demo", ["--redundancy", "prayer"], "one of none"),
        ("demo", ["--workers", "3"], "--redundancy"),
        ("demo", ["--redundancy", "coded", "--configuration", "c"], "use d, e or f"),
    ],
)
def test_impossible_options_are_refused(name: str, flags: list[str], words: str) -> None:
    result = CliRunner().invoke(main, [name, *flags])
    assert result.exit_code == ConfigError.exit_code
    assert result.stdout == ""
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_check_runs_nothing() -> None:
    result = CliRunner().invoke(main, ["demo", "--rate", "5", "--check"])
    assert (result.exit_code, result.stdout) == (0, "demo: the configuration is valid\n")


@pytest.mark.parametrize("flags", [["--weights", "random"], ["--fine-tune", "off"]], ids=str)
def test_what_concerns_a_backbone_is_refused_without_one(flags: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["train", "--out", str(tmp_path / "new"), *flags])
    assert done.exit_code == 2
    assert f"{' '.join(flags)} goes with --backbone" in done.output
