"""Site files: read back as written; what is broken, hostile or of another site is refused."""

from __future__ import annotations

import io
import ssl
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from cloud_app.app import CloudSettings
from ddnn.adapters import site_file
from ddnn.adapters.command import read_config
from ddnn.adapters.joined import check_site_file, open_guard
from ddnn.adapters.site_file import read_site_file
from ddnn.cli import main
from ddnn.cli.observer import ObserverSettings
from ddnn.errors import ConfigError
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.settings import NodeSettings
from device_app.settings import DeviceSettings
from edge_app.app import EdgeSettings


def ddnn(*words: Any) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a site and the files of its nodes."""
    path = tmp_path_factory.mktemp("site")
    (path / "word").write_text("correct horse\n")
    ddnn("site", "init", path / "site", "--broker", "gateway.lan", "--broker", "10.0.0.1")
    for node, *roles in (("cam1", "device"), ("edge", "edge"), ("page", "cloud", "dashboard")):
        flags = [word for role in roles for word in ("--role", role)]
        ddnn(
            "site", "add-node", node, *flags, "--dir", path / "site", "--out", path / f"{node}.site"
        )
    flags = ("--passphrase-file", path / "word", "--dir", path / "site")
    ddnn("site", "add-node", "cam2", "--role", "device", *flags, "--out", path / "cam2.site")
    return path


def read_members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}


def test_a_site_file_is_all_that_a_node_needs(site: Path) -> None:
    given = {"site_file": str(site / "cam1.site"), "source": "picamera://0"}
    settings = read_config(DeviceSettings, given, {})
    assert (settings.node, settings.site) == ("cam1", "home")
    assert list(map(str, settings.brokers)) == ["gateway.lan:8883", "10.0.0.1:8883"]
    assert (site / "cam1.site").stat().st_mode & 0o777 == 0o600
    assert "certificate of cam1 (device), valid for 7" in check_site_file(settings)
    context = read_site_file(site / "cam1.site").make_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_nodes_that_command_have_a_key_and_the_others_have_none(site: Path) -> None:
    keys = {
        node: site_file.COMMAND_KEY in read_members(site / f"{node}.site")
        for node in ("cam1", "edge", "page")
    }
    assert keys == {"cam1": False, "edge": True, "page": True}


def test_what_one_node_signs_another_obeys(site: Path, tmp_path: Path) -> None:
    page, edge = (
        open_guard(
            read_config(
                ObserverSettings,
                {"site_file": str(site / f"{node}.site"), "state": str(tmp_path)},
                {},
            )
        )
        for node in ("page", "edge")
    )
    assert page is not None
    assert edge is not None
    topic = Topic("home", Kind.THRESHOLDS, "edge")
    assert edge.open(topic, page.seal(topic, b"{}")) == b"{}"
    assert (tmp_path / "edge.commands").exists()


def test_a_passphrase_is_needed_and_must_be_right(site: Path, tmp_path: Path) -> None:
    path = site / "cam2.site"
    assert read_site_file(path, "correct horse").make_context()
    with pytest.raises(ConfigError, match="no passphrase; give its passphrase by --site-passphr"):
        read_site_file(path).make_context()
    with pytest.raises(ConfigError, match="the passphrase is wrong"):
        read_site_file(path, "wrong horse").make_context()
    with pytest.raises(ConfigError, match="an unneeded passphrase"):
        read_site_file(site / "cam1.site", "correct horse").make_context()
    assert b"ENCRYPTED" in read_members(path)["node.key"]


def test_node_and_site_must_be_those_of_the_file(site: Path) -> None:
    for key, value in (("node", "cam2"), ("site", "barn")):
        with pytest.raises(ConfigError, match=f"--{key} {value} with --site-file .* is of {key}"):
            read_config(NodeSettings, {"site_file": str(site / "cam1.site"), key: value}, {})
    given = {"site_file": str(site / "cam1.site"), "broker_user": "cam1"}
    with pytest.raises(ConfigError, match="whose certificate names the user"):
        read_config(NodeSettings, given, {})


@pytest.mark.parametrize("host", ["gateway.lan", "10.0.0.1", "::2", "localhost,gateway.lan"])
def test_without_a_site_file_a_node_stays_on_its_machine(host: str) -> None:
    given = {"node": "edge", "broker_host": host}
    with pytest.raises(ConfigError, match=r"without a site file: .* --site-file .* or --insecure"):
        read_config(EdgeSettings, given, {})
    assert read_config(EdgeSettings, {**given, "insecure": True}, {}).insecure
    assert read_config(EdgeSettings, given, {"DDNN_INSECURE": "true"}).insecure
    for own in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "localhost,[::1]:1884"):
        assert not read_config(EdgeSettings, {"node": "edge", "broker_host": own}, {}).insecure


@pytest.mark.parametrize(
    ("schema", "given", "missing"),
    [
        (DeviceSettings, {"source": "picamera://0"}, ""),
        (DeviceSettings, {"source": "picamera://0", "lend": "on"}, "worker"),
        (DeviceSettings, {"bundle": "b", "lend": "on"}, "worker"),
        (DeviceSettings, {"lend": "on"}, "trainer"),
        (EdgeSettings, {}, "edge"),
        (CloudSettings, {"serve": "all"}, "cloud, dashboard"),
        (CloudSettings, {"serve": "page"}, "dashboard"),
        (CloudSettings, {"serve": "node"}, "cloud"),
    ],
)
def test_a_node_needs_the_roles_of_what_it_does(
    site: Path, schema: Any, given: dict[str, str], missing: str
) -> None:
    settings = read_config(schema, {"site_file": str(site / "cam1.site"), **given}, {})
    if not missing:
        assert open_guard(settings) is not None
        return
    flags = " ".join(f"--role {role}" for role in missing.split(", "))
    for use in (open_guard, check_site_file):
        with pytest.raises(ConfigError, match=f"without {missing} that this node needs") as caught:
            use(settings)
        assert str(caught.value).endswith(f"add-node cam1 --renew --role device {flags}")


# ------------------------------------------------------------------- broken files


def pack(path: Path, members: dict[str, bytes], extra: tarfile.TarInfo | None = None) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if extra is not None:
            tar.addfile(extra)
    return path


def make_link(kind: bytes, name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "extra",
    [
        make_link(tarfile.SYMTYPE, "node.key", "/etc/passwd"),
        make_link(tarfile.LNKTYPE, "node.key", "node.crt"),
        make_link(tarfile.DIRTYPE, "node.key", ""),
        make_link(tarfile.FIFOTYPE, "node.key", ""),
        make_link(tarfile.CHRTYPE, "node.key", ""),
        make_link(tarfile.GNUTYPE_SPARSE, "node.key", ""),
        make_link(tarfile.REGTYPE, "../node.key", ""),
        make_link(tarfile.REGTYPE, "/etc/cron.d/x", ""),
        make_link(tarfile.REGTYPE, "node.key", ""),  # empty
    ],
    ids=lambda info: f"{info.type!r} {info.name}",
)
def test_links_paths_and_special_files_are_refused(
    site: Path, tmp_path: Path, extra: tarfile.TarInfo
) -> None:
    members = read_members(site / "cam1.site")
    del members["node.key"]
    with pytest.raises(ConfigError, match="add-node NODE --renew"):
        read_site_file(pack(tmp_path / "x.site", members, extra))


@pytest.mark.parametrize("name", ["site.json", "ca.crt", "node.crt", "node.key"])
def test_a_missing_doubled_or_large_member_is_refused(
    site: Path, tmp_path: Path, name: str
) -> None:
    members = read_members(site / "cam1.site")
    without = {key: value for key, value in members.items() if key != name}
    with pytest.raises(ConfigError, match=f"no {name} in it"):
        read_site_file(pack(tmp_path / "a.site", without))
    large = {**members, name: b"x" * (site_file.MAX_MEMBER_BYTES + 1)}
    with pytest.raises(ConfigError, match=f"{name} is there twice, or has 65537 bytes"):
        read_site_file(pack(tmp_path / "b.site", large))
    doubled = tmp_path / "c.site"
    doubled.write_bytes(
        (site / "cam1.site").read_bytes()[:-10240] + (site / "cam1.site").read_bytes()
    )
    pack(doubled, members)
    with tarfile.open(doubled, "a") as tar:
        info = tarfile.TarInfo(name)
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(ConfigError, match="is there twice"):
        read_site_file(doubled)


def test_every_cut_and_every_flip_is_refused_or_harmless(site: Path, tmp_path: Path) -> None:
    whole, path = (site / "cam1.site").read_bytes(), tmp_path / "x.site"
    for length in range(0, len(whole), 509):
        path.write_bytes(whole[:length])
        try_to_use(path)
    for position in range(0, len(whole), 227):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        try_to_use(path)


def try_to_use(path: Path) -> None:
    """Nothing but a ConfigError may come."""
    try:
        read_site_file(path).make_context()
    except ConfigError as error:
        assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"node": "../x"}, "site.json"),
        ({"brokers": []}, "site.json"),
        ({"roles": ["admin"]}, "site.json"),
        ({"trusted": [{"key": "x"}]}, "site.json"),
        ({"run": "rm"}, "site.json"),
    ],
)
def test_what_site_json_says_is_checked(
    site: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    members = read_members(site / "cam1.site")
    said = {**msgspec.json.decode(members["site.json"]), **change}
    with pytest.raises(ConfigError, match=words):
        read_site_file(
            pack(tmp_path / "x.site", {**members, "site.json": msgspec.json.encode(said)})
        )


def test_a_file_that_there_is_not_and_one_that_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_site_file(tmp_path / "none.site")
    large = tmp_path / "large.site"
    with large.open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(ConfigError, match="more than 262144 bytes"):
        read_site_file(large)


@pytest.mark.parametrize("what", ["key", "delegation_signature"])
@pytest.mark.parametrize("text", ["A" * 43, "ä" * 44])
def test_a_broken_key_is_named(site: Path, what: str, text: str) -> None:
    whole = read_site_file(site / "edge.site")
    identity = whole.identity
    if what == "key":
        trusted = (msgspec.structs.replace(identity.trusted[0], key=text),)
        identity = msgspec.structs.replace(identity, trusted=trusted)
    else:
        identity = msgspec.structs.replace(identity, delegation_signature=text)
    with pytest.raises(ConfigError, match="a key or a signature is broken"):
        replace(whole, identity=identity).make_guard(None)


def test_no_file_is_written_to_connect(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full keeps no node from its broker."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    read_site_file(site / "edge.site").make_context()
