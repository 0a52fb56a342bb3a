"""Configuration: flag over environment over file; what is wrong is refused, with the remedy."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cloud_app.app import CloudSettings
from ddnn.adapters.command import app_command, read_config
from ddnn.errors import ConfigError, DdnnError, LinkError
from ddnn.runtime.settings import NodeSettings
from device_app.app import DeviceSettings
from edge_app.app import EdgeSettings

NEEDED = {"node": "cam1", "bundle": "b"}


def test_flag_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('broker_host = "file"\nbroker_port = 1\nsite = "file"\ndeadline_s = 9\n')
    environ = {"DDNN_BROKER_PORT": "2", "DDNN_SITE": "environ", "DDNN_HOME": "/not/ours"}
    flags = {**NEEDED, "site": "flag"}
    config = read_config(NodeSettings, flags, environ, file)
    assert (config.site, config.broker_port, config.broker_host) == ("flag", 2, "file")
    assert (config.deadline_s, config.window_s) == (9.0, 0.12)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'nodes = "cam1"', "unknown key 'nodes'; known: broker_host, broker_password_file"),
        (b"[broker]\nport = 1", "unknown key 'broker'"),
        (b"node = ", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        (b"broker_port = 70000", "broker_port"),
        (b'broker_port = "x"', "broker_port"),
        (b"deadline_s = nan", "deadline_s"),
        (b"deadline_s = inf", "finite"),
        (b"deadline_s = 0", "deadline_s"),
        (b"window_s = 2", "leaves no time for the cloud"),
        (b'mqtt = "4"', "mqtt"),
        (b'log_level = "loud"', "log_level"),
        (b'node = "Cam 1"', "is not an id"),
        (b'site = "a/b"', "is not an id"),
        (b'site = "all"', "name this node's own site"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(content)
    flags = {key: value for key, value in NEEDED.items() if key.encode() not in content}
    with pytest.raises(ConfigError) as caught:
        read_config(NodeSettings, flags, {}, file)
    assert words in str(caught.value)


def test_a_file_that_there_is_not(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match=r"--config .*: (No such file|Is a directory)"):
            read_config(NodeSettings, NEEDED, {}, path)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="bundle"):
        read_config(NodeSettings, {"node": "cam1"}, {})


def test_only_the_cloud_serves_every_site() -> None:
    everywhere = {**NEEDED, "site": "all"}
    assert read_config(CloudSettings, everywhere, {}).site == "all"
    for schema, more in ((EdgeSettings, {}), (DeviceSettings, {"source": "dataset:scenes"})):
        with pytest.raises(ConfigError, match="own site"):
            read_config(schema, {**everywhere, **more}, {})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("source", "webcam", "--source 'webcam': expected KIND"),
        ("source", "video:", "expected KIND"),
        ("view", "-1", "view"),
        ("rate_hz", "0", "rate_hz"),
        ("rate_hz", "nan", "rate_hz"),
    ],
)
def test_a_device_refuses_what_can_never_work(key: str, value: str, words: str) -> None:
    flags = {**NEEDED, "source": "dataset:scenes", key: value}
    with pytest.raises(ConfigError) as caught:
        read_config(DeviceSettings, flags, {})
    assert words in str(caught.value)


# ---------------------------------------------------------------- the command


def invoke(run: Callable[[NodeSettings], None], *arguments: str, **environ: str) -> Result:
    command = app_command(NodeSettings, run, name="some_app", description="Does it.")
    return CliRunner().invoke(command, arguments, env=environ)


def fail_if_run(_: NodeSettings) -> None:
    pytest.fail("the app was run")


def test_the_app_gets_what_was_given() -> None:
    got: list[NodeSettings] = []
    result = invoke(got.append, "--node", "cam1", "--broker-port", "99", DDNN_BUNDLE="x")
    assert result.exit_code == 0, result.output
    assert (got[0].node, got[0].broker_port, got[0].bundle) == ("cam1", 99, "x")


def test_check_validates_and_runs_nothing() -> None:
    good = invoke(fail_if_run, "--node", "cam1", "--bundle", "x", "--check")
    assert (good.exit_code, good.stdout) == (0, "some_app: the configuration is valid\n")
    bad = invoke(fail_if_run, "--node", "Cam", "--bundle", "x", "--check")
    assert bad.exit_code == 2
    assert bad.stdout == ""
    assert bad.stderr.startswith("error: node 'Cam' is not an id")
    assert bad.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [ConfigError, LinkError, DdnnError])
def test_an_error_is_one_line_and_its_exit_code(error: type[DdnnError]) -> None:
    def run(_: NodeSettings) -> None:
        raise error("what and why")

    result = invoke(run, "--node", "cam1", "--bundle", "x")
    assert result.exit_code == error.exit_code
    assert result.stderr == "error: what and why\n"


def test_a_flag_that_there_is_not() -> None:
    result = invoke(fail_if_run, "--nodes", "cam1")
    assert result.exit_code == 2
    assert "No such option" in result.stderr


@pytest.mark.parametrize("app", ["device_app", "edge_app", "cloud_app"])
def test_help_has_every_key_and_examples(app: str) -> None:
    command = [sys.executable, "-m", app, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "Example" in done.stdout
    assert f"python -m {app} --" in done.stdout
    schema = {"device_app": DeviceSettings, "edge_app": EdgeSettings, "cloud_app": CloudSettings}
    words = done.stdout.split()
    for key in schema[app].__struct_fields__:
        assert "--" + key.replace("_", "-") in words, key


@pytest.mark.parametrize(
    ("app", "flags", "words"),
    [
        (
            "device_app",
            ["--node", "cam1", "--bundle", "/nowhere", "--source", "dataset:scenes"],
            "/nowhere is not a bundle",
        ),
        (
            "device_app",
            ["--node", "cam1", "--bundle", "x", "--source", "webcam"],
            "--source 'webcam'",
        ),
        ("edge_app", ["--node", "edge", "--bundle", "/nowhere"], "/nowhere is not a bundle"),
        ("cloud_app", ["--bundle", "/nowhere"], "/nowhere is not a bundle"),
    ],
)
def test_an_app_that_cannot_start_ends_with_2(
    app: str, flags: list[str], words: str, tmp_path: Path
) -> None:
    """Through `main` of the real modules, with no traceback."""
    module = importlib.import_module(f"{app}.app")
    schema = next(
        v for k, v in vars(module).items() if k.endswith("Settings") and v is not NodeSettings
    )
    command = app_command(schema, module.run, name=app, description="")
    result = CliRunner().invoke(command, [*flags, "--state", str(tmp_path)])
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_device_that_the_bundle_does_not_know(scenes_bundle: Path, tmp_path: Path) -> None:
    module = importlib.import_module("device_app.app")
    command = app_command(DeviceSettings, module.run, name="device_app", description="")
    flags = ["--node", "cam9", "--bundle", str(scenes_bundle), "--source", "dataset:scenes"]
    result = CliRunner().invoke(command, [*flags, "--state", str(tmp_path)])
    assert result.exit_code == 2
    assert "'cam9' is no device of the bundle; it knows cam1" in result.stderr
