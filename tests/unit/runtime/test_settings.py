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
from ddnn.adapters.config_sources import Sources
from ddnn.errors import ConfigError, DdnnError, LinkError
from ddnn.runtime.settings import NodeSettings, read_secret
from device_app.settings import DeviceSettings
from edge_app.app import EdgeSettings

NEEDED = {"node": "cam1", "bundle": "b"}


def test_flag_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('broker_host = "::1"\nbroker_port = 1\nsite = "file"\ndeadline_s = 9\n')
    environ = {"DDNN_BROKER_PORT": "2", "DDNN_SITE": "environ", "DDNN_HOME": "/not/ours"}
    flags = {**NEEDED, "site": "flag"}
    config = read_config(NodeSettings, flags, environ, file)
    assert (config.site, config.broker_port, config.broker_host) == ("flag", 2, "::1")
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
        (b"deadline_s = inf", "deadline_s"),
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
    with pytest.raises(ConfigError, match="node"):
        read_config(NodeSettings, {"bundle": "b"}, {})


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
    assert bad.stderr.startswith("error: --node 'Cam' is not an id")
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


# -------------------------------------------------- where a wrong value comes from


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("broker_port", "abc", "expected `int`"),
        ("broker_port", "70000", "(key broker_port)"),
        ("deadline_s", "soon", "expected `float`"),
        ("mqtt", "4", "invalid enum value"),
        ("site", "all", "name this node's own site"),
        ("site", "My Home", "is not an id"),
        ("broker_password_file", "secret.txt", "needs --broker-user"),
    ],
)
def test_a_wrong_value_is_named_with_its_source(
    tmp_path: Path, key: str, value: str, reason: str
) -> None:
    flag, variable = "--" + key.replace("_", "-"), "DDNN_" + key.upper()
    file = tmp_path / "node.toml"
    file.write_text(f'{key} = "{value}"\n')
    for named, flags, environ, path in (
        (flag, {key: value}, {}, None),
        (f"{variable} '{value}'", {}, {variable: value}, None),
        (f"{key} in {file} '{value}'", {}, {}, file),
    ):
        with pytest.raises(ConfigError) as caught:
            read_config(NodeSettings, {**NEEDED, **flags}, environ, path)
        assert named in str(caught.value)
        assert reason in str(caught.value)
        assert value in str(caught.value) or key == "broker_password_file"


@pytest.mark.parametrize(
    ("key", "value"), [("stats_every_s", "1e-9"), ("deadline_s", "1e-9"), ("window_s", "1e-12")]
)
def test_a_time_that_no_node_can_keep_is_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"{value}.*\(key {key}\)"):
        read_config(NodeSettings, {**NEEDED, key: value}, {})


def test_a_missing_key_is_named_with_the_ways_to_give_it() -> None:
    with pytest.raises(ConfigError, match=r"no node; expected --node, DDNN_NODE or the key"):
        read_config(NodeSettings, {"bundle": "b"}, {})


def test_an_error_of_the_program_names_the_source_too() -> None:
    def run(settings: NodeSettings) -> None:
        raise ConfigError(f"--node {settings.node!r} is no device of the bundle; it knows cam1")

    result = invoke(run, "--bundle", "b", DDNN_NODE="cam9")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: DDNN_NODE 'cam9': --node 'cam9' is no device")
    result = invoke(run, "--bundle", "b", "--node", "cam9", DDNN_NODE="cam8")
    assert result.stderr.startswith("error: --node 'cam9' is no device")


def test_the_password_of_a_uri_is_not_shown() -> None:
    uri = "cloud://me:hunter2@host/x"
    with pytest.raises(ConfigError) as caught:
        read_config(NodeSettings, NEEDED, {"DDNN_BROKER_PORT": uri})
    assert "hunter2" not in str(caught.value)
    assert "***@host" in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://admin:ge heim@10.0.0.5/x",
        "rstp://admin:ge/heim@10.0.0.5/x",
        "rtsp://admin:p@ge@heim@10.0.0.5/x",
        "rtsp:admin:geheim@10.0.0.5",
        "rtsp://10.0.0.5/live?user=admin&password=geheim",
        "rtsp:10.0.0.5/live?pwd=geheim",
    ],
)
def test_no_password_of_a_source_is_shown_however_it_is_written(uri: str) -> None:
    sources = Sources()
    sources.add_file("dev.toml", {"source": uri})
    for message in ("--source '***': expected", "source rtsp: no module named 'cv2'"):
        text = sources.explain(message, ["source"])
        assert text.startswith("source in dev.toml ")
        for part in ("ge heim", "ge/heim", "heim", "p@ge"):
            assert part not in text


def test_the_longest_key_is_what_a_message_is_about() -> None:
    sources = Sources()
    sources.add_file("dev.toml", {"site": "home", "site_file": "a.site"})
    text = sources.explain("site file a.site: its certificate has expired", ["site", "site_file"])
    assert text.startswith("site_file in dev.toml 'a.site': site file")


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b""])
def test_files_of_windows_editors_are_read(tmp_path: Path, ends: bytes) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(BOM + b'site = "shop"' + ends + b"broker_port = 1" * bool(ends) + ends)
    assert read_config(NodeSettings, NEEDED, {}, file).site == "shop"
    secret = tmp_path / "password"
    secret.write_bytes(BOM + "pässword".encode() + ends)
    assert read_secret(str(secret)) == "pässword"
    secret.write_bytes(BOM)
    with pytest.raises(ConfigError, match="is empty"):
        read_secret(str(secret))


def test_the_broker_has_one_address_or_several() -> None:
    def list_brokers(host: str) -> list[str]:
        settings = NodeSettings(node="cam1", broker_host=host, broker_port=1884, insecure=True)
        return list(map(str, settings.brokers))

    assert list_brokers("gateway.lan") == ["gateway.lan:1884"]
    assert list_brokers("::1") == ["[::1]:1884"]
    assert list_brokers("a.lan, b.lan:1,[::1],[::1]:2") == [
        "a.lan:1884",
        "b.lan:1",
        "[::1]:1884",
        "[::1]:2",
    ]
    for wrong in ("", "a.lan,", "a.lan:0", "a.lan:x", "a b", ",".join(["a"] * 17)):
        with pytest.raises(ConfigError, match="--broker-host"):
            list_brokers(wrong)
