"""`ddnn site`: what it writes, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from ddnn.adapters.site_file import read_site_file
from ddnn.cli import main
from ddnn.cli.site.broker_files import format_access, list_bridge_lines
from ddnn.cli.site.directory import open_site
from tests.deployment.test_bridge import conf


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a site in it."""
    monkeypatch.chdir(tmp_path)
    ddnn("init", "site", "--broker", "gateway.lan:9883", "--broker", "[fd00::1]:9883")
    return tmp_path


def invoke(*words: Any) -> Result:
    return CliRunner().invoke(main, ["site", *map(str, words)])


def ddnn(*words: Any) -> str:
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    return result.output


def refuse(*words: Any) -> str:
    result = invoke(*words)
    assert result.exit_code == 2, result.output
    return result.stderr


def read_access(here: Path) -> dict[str, list[str]]:
    """By user, the lines of the access list."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (here / "site/broker/access").read_text().splitlines():
        if line.startswith("user "):
            lines = found.setdefault(line.removeprefix("user "), [])
        elif line and not line.startswith("#"):
            lines.append(line.removeprefix("topic "))
    return found


def find_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_init_writes(here: Path) -> None:
    site = here / "site"
    assert find_mode(site) == find_mode(site / "private") == 0o700
    secrets = (site / "private/ca.key", site / "private/signing.key", site / "broker/broker.key")
    assert all(find_mode(file) == 0o600 for file in secrets)
    certificate = x509.load_pem_x509_certificate((site / "broker/broker.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gateway.lan", "localhost"]
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["fd00::1", "127.0.0.1"]
    lines = (site / "broker/mosquitto.conf").read_text().splitlines()
    for line in (
        "listener 9883",
        "tls_version tlsv1.2",
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
        f"crlfile {site}/broker/revoked.pem",
        f"acl_file {site}/broker/access",
    ):
        assert line in lines


def test_keys_are_never_replaced(here: Path) -> None:
    before = (here / "site/private/ca.key").read_bytes()
    assert "holds a site already; its keys are kept" in refuse("init", "site")
    assert (here / "site/private/ca.key").read_bytes() == before


def test_a_node_is_added_renewed_and_revoked(here: Path) -> None:
    assert "cam1 (device), valid until" in ddnn("add-node", "cam1", "--role", "device")
    first = read_site_file(here / "cam1.site")
    assert read_access(here).keys() == {"cam1"}
    assert "cam1.site exists" in refuse("add-node", "cam1", "--role", "device")
    (here / "cam1.site").unlink()
    assert "--renew` makes a new file" in refuse("add-node", "cam1", "--role", "device")
    ddnn("add-node", "cam1", "--renew")
    second = read_site_file(here / "cam1.site")
    assert second.identity.roles == first.identity.roles == ("device",)
    assert second.certificate != first.certificate
    ddnn("add-node", "edge", "--role", "edge")
    assert "write ddnn/v1/home/time/cam1/reply" in read_access(here)["edge"]
    assert "2 certificates revoked" in ddnn("revoke", "cam1")
    assert read_access(here).keys() == {"edge"}
    assert "write ddnn/v1/home/time/cam1/reply" not in read_access(here)["edge"]
    listed = x509.load_pem_x509_crl((here / "site/broker/revoked.pem").read_bytes())
    for file in (first, second):
        serial = x509.load_pem_x509_certificate(file.certificate).serial_number
        assert listed.get_revoked_certificate_by_serial_number(serial) is not None
    report = json.loads(ddnn("list", "--json"))
    states = {row["node"]: row["state"] for row in report["nodes"]}
    assert states == {"cam1": "revoked", "edge": "valid"}
    (here / "cam1.site").unlink()
    ddnn("add-node", "cam1", "--role", "device")  # a name may be used again
    assert read_access(here).keys() == {"cam1", "edge"}


def test_the_list_tells_what_must_be_renewed(here: Path) -> None:
    ddnn("add-node", "cam1", "--role", "device", "--days", "20")
    ddnn("add-node", "cam2", "--role", "device")
    text = ddnn("list")
    assert [line.split()[-1] for line in text.splitlines()[2:4]] == ["renew", "valid"]
    ddnn("renew-broker", "--days", "10")
    report = json.loads(ddnn("list", "--json"))
    assert report["certificates"]["broker"]["state"] == "renew"
    assert report["brokers"] == ["gateway.lan:9883", "[fd00::1]:9883"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add-node", "Cam1", "--role", "device"], "is not an id"),
        (["add-node", "cam1"], "no role; expected --role device|worker"),
        (["add-node", "cam1", "--role", "device", "--days", "0"], "expected 1 to 3650"),
        (["add-node", "cam1", "--renew"], "is no node of home; leave out --renew"),
        (["add-node", "home", "--role", "bridge", "--role", "edge"], "goes with no other role"),
        (["revoke", "cam9"], "cam9 is no node of home"),
        (["list", "--dir", "elsewhere"], "elsewhere holds no site; name its directory by --dir"),
        (["init", "new", "--broker", "a b"], "expected HOST or HOST:PORT"),
        (["init", "new", "--broker", "a:0"], "expected HOST or HOST:PORT"),
        (["init", "new", "--broker", "a:1", "--broker", "b:2"], "with several ports"),
        (["init", "new", "--site", "A"], "is not an id"),
        (["bridge", "none.site"], "No such file"),
    ],
)
def test_what_is_wrong_is_named(here: Path, words: list[str], message: str) -> None:
    assert message in refuse(*words)
    assert not (here / "new").exists()


def test_a_damaged_directory_is_named(here: Path) -> None:
    (here / "site/private/ca.key").write_text("x")
    assert "its keys cannot be read" in refuse("add-node", "cam1", "--role", "device")
    (here / "site/site.json").write_text("{")
    assert "restore it from a backup" in refuse("list")


def test_the_broker_reloads(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    (here / "pid").write_text("4711\n")
    flags = ("--reload", here / "pid")
    assert "the broker reloads" in ddnn("add-node", "cam1", "--role", "device", *flags)
    assert sent == [(4711, signal.SIGHUP)]
    assert "the files are written" in refuse("revoke", "cam1", "--reload", here / "none")
    assert read_access(here) == {}


def test_two_brokers_are_joined(here: Path) -> None:
    cloud = ("--dir", "cloud")
    ddnn("init", "cloud", "--site", "all", "--broker", "cloud.example")
    ddnn("add-node", "page", "--role", "dashboard", *cloud)
    ddnn("add-node", "home", "--role", "bridge", *cloud)
    assert "made in the cloud's directory" in refuse("bridge", "page.site")
    assert "bridge to cloud.example:8883" in ddnn("bridge", "home.site")
    lines = (here / "site/broker/mosquitto.conf").read_text().splitlines()
    assert "address cloud.example:8883" in lines
    assert f"bridge_certfile {here}/site/broker/bridge.crt" in lines
    ddnn("add-node", "edge", "--role", "edge")
    page, edge = (read_site_file(here / f"{node}.site").identity for node in ("page", "edge"))
    own, joined = edge.trusted
    assert own.roles == ()
    assert (joined.key, joined.roles) == (page.trusted[0].key, ("dashboard",))
    assert "read ddnn/v1/all/node/+/status" in read_access(here)["edge"]
    with open_site(here / "cloud") as opened:
        access = format_access(opened.record)
    assert "topic write ddnn/v1/home/answer/+" in access
    assert "topic write ddnn/v1/+/node/+/cmd/thresholds" in access  # page: of every site
    assert "ddnn/v1/+/answer" not in access.partition("user page")[0]  # the bridge: of its own


def test_the_bridge_is_that_of_the_composed_brokers() -> None:
    """Thresholds are the only command; mosquitto/edge.conf leaves room for later ones."""
    shipped = {" ".join(words) for words in conf("edge") if words[0] == "topic"}
    written = {
        line.replace("node/+/cmd/thresholds", "node/+/cmd/#") for line in list_bridge_lines("home")
    }
    assert written == shipped


def test_without_cryptography_other_commands_work(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None; from ddnn.cli import main; "
        "main(sys.argv[1:])"
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert run("site", "--help").returncode == 0
    for words in (["site", "list"], ["site", "init", "x"], ["status", "--site-file", "x.site"]):
        done = run(*words)
        assert (done.returncode, "pip install 'ddnn[site]'" in done.stderr) == (2, True), done


def test_the_revocation_list_is_valid_whatever_a_clock_says(here: Path) -> None:
    """A gateway without a battery for its clock must not refuse everyone; and the newest list has
    the latest time of issue, which OpenSSL goes by."""
    issued = []
    ddnn("add-node", "cam1", "--role", "device")
    for command in ((), ("revoke", "cam1")):
        if command:
            ddnn(*command)
        pem = (here / "site/broker/revoked.pem").read_bytes()
        issued.append(x509.load_pem_x509_crl(pem).last_update_utc)
    ca = x509.load_pem_x509_certificate((here / "site/ca.crt").read_bytes())
    assert issued[0] < issued[1]
    assert issued[1] - ca.not_valid_before_utc < timedelta(minutes=1)
    assert issued[0] >= ca.not_valid_before_utc


def test_a_broker_directory_that_was_moved_is_said_and_nothing_is_written(here: Path) -> None:
    (here / "site/broker").rename(here / "elsewhere")
    record = (here / "site/site.json").read_bytes()
    text = refuse("add-node", "cam1", "--role", "device")
    assert "site/broker has no ca.crt, broker.crt, broker.key, revoked.pem" in text
    assert not (here / "cam1.site").exists()
    assert (here / "site/site.json").read_bytes() == record
    (here / "elsewhere").rename(here / "site/broker")
    ddnn("add-node", "cam1", "--role", "device")


def test_a_site_file_that_cannot_be_written_adds_nobody(here: Path) -> None:
    out = here / "nowhere" / "cam1.site"
    assert "cannot be written" in refuse("add-node", "cam1", "--role", "device", "--out", out)
    assert "cam1" not in ddnn("list")
