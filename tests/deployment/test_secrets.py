"""`ddnn secrets`: what it makes is what Mosquitto, libpq and containers take."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from ddnn.cli import main
from ddnn.cli.secrets import CLOUD_USERS, EDGE_USERS, generate_secrets, hash_password
from tests.deployment.native import make_database, open_directory
from tests.parts import need
from tests.postgres import running_postgres


def make_secrets(directory: Path, *more: str):
    return CliRunner().invoke(main, ["secrets", str(directory), *more])


def test_all_files_are_made_and_the_dashboards_password_is_told(tmp_path: Path):
    directory = tmp_path / "secrets"
    done = make_secrets(directory)
    assert done.exit_code == 0, done.output
    assert {file.name for file in directory.iterdir()} == generate_secrets().keys()
    password = (directory / "dashboard_password").read_text().strip()
    assert done.output.count(password) == 1
    for file in directory.iterdir():
        if file.name != "dashboard_password":
            assert file.read_text().strip() not in done.output


def test_only_the_owner_enters_but_a_container_reads_what_it_is_given(tmp_path: Path):
    directory = tmp_path / "secrets"
    before = os.umask(0o077)
    try:
        make_secrets(directory)
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in directory.iterdir()} == {0o444}


def test_a_container_reads_a_mounted_secret_and_not_the_directory():
    """A bind mount is the same file by another path, as a hard link is."""
    root = os.geteuid() == 0
    container = {"user": 10001, "group": 10001, "extra_groups": []} if root else {}
    with open_directory() as place:
        make_secrets(place / "secrets")
        os.link(place / "secrets" / "api_token", place / "mounted")

        def can_read(file: Path) -> bool:
            command = ["/bin/cat", str(file)]
            done = subprocess.run(command, **container, capture_output=True, timeout=5)
            return done.returncode == 0

        assert can_read(place / "mounted")
        assert can_read(place / "secrets" / "api_token") == (not root)


def test_nothing_is_overwritten_unless_forced(tmp_path: Path):
    make_secrets(tmp_path / "secrets")
    before = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    refused = make_secrets(tmp_path / "secrets")
    assert refused.exit_code == 2
    assert "--force" in refused.output
    assert before == {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    forced = make_secrets(tmp_path / "secrets", "--force")
    assert forced.exit_code == 0
    after = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in after)


def test_a_directory_that_cannot_be_is_refused_in_words(tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = make_secrets(tmp_path / "file" / "secrets")
    assert done.exit_code == 2
    assert "choose another directory" in done.output


def test_every_user_has_its_own_password():
    files = generate_secrets()
    passwords = [files[f"mqtt_{user}"] for user in {*EDGE_USERS, *CLOUD_USERS}]
    assert len({*passwords}) == len(passwords)
    for users, broker in ((EDGE_USERS, "edge"), (CLOUD_USERS, "cloud")):
        lines = files[f"mqtt_{broker}_users"].splitlines()
        assert [line.split(":")[0] for line in lines] == [*users]
        assert not any(password.strip() in "".join(lines) for password in passwords)


def test_the_hash_is_mosquittos_own():
    need(shutil.which("mosquitto_passwd"), "mosquitto_passwd is not installed")
    with open_directory() as place:
        file = place / "users"
        command = ["mosquitto_passwd", "-c", "-b", str(file), "cam", "secret"]
        subprocess.run(command, check=True, capture_output=True, timeout=10)
        theirs = file.read_text().strip().removeprefix("cam:")
    _, _, iterations, salt, _ = theirs.split("$")
    assert hash_password("secret", base64.b64decode(salt), int(iterations)) == theirs


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_libpq_takes_the_password_file_that_is_its_users_alone(mode: int, tmp_path: Path):
    """Why the services copy it: libpq looks at the mode of a password file, not at its owner."""
    files = generate_secrets()
    file = tmp_path / "pgpass"
    file.write_text(files["database_pgpass"])
    file.chmod(mode)
    with running_postgres() as server:
        port = make_database(server.url, files["database_password"].strip())
        url = f"postgresql://ddnn@127.0.0.1:{port}/ddnn?passfile={file}"
        if mode == 0o600:
            psycopg.connect(url, connect_timeout=5).close()
        else:
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(url, connect_timeout=5)
