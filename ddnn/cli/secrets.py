"""`ddnn secrets`: every password of a deployment, as the files that docker-compose.yml mounts.

A container sees a secret as a bind mount of the file here, with this file's owner and mode, and
runs as a user of its own. So the files can be read by everyone and the directory by its owner
alone (0700): on the host nobody else gets to them, and a container gets those it is given.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets as random
from collections.abc import Mapping
from pathlib import Path

import click

from ddnn.adapters.command import exit_codes
from ddnn.errors import ConfigError

# The users of the two brokers, one per role; each one's password is the file mqtt_<user>.
EDGE_USERS = ("device", "edge", "health")
CLOUD_USERS = ("bridge", "cloud", "dashboard", "health")
DATABASE = "ddnn"  # name of the database and of its user
RANDOM_BYTES = 24
# Nobody guesses 24 random bytes, however fast; and the broker's only thread pays these per connect.
PBKDF2_ITERATIONS = 1_000
SALT_BYTES = 12
DIRECTORY_MODE, FILE_MODE = 0o700, 0o444

EPILOG = """\b
Example:
  ddnn secrets secrets            then: docker compose up
"""


@click.command(epilog=EPILOG)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Make all anew, over those that are there.")
def secrets(directory: Path, force: bool) -> None:
    """Make the passwords of a deployment in DIRECTORY; prints the dashboard's once."""
    with exit_codes():
        files = generate()
        write(directory, files, force=force)
        click.echo(f"{len(files)} files in {directory}; keep it to yourself and out of git")
        if force:
            click.echo(
                "a database that exists keeps its old password: "
                "ALTER ROLE, or start it with an empty volume"
            )
        click.echo(f"password of the dashboard: {files['dashboard_password']}", nl=False)


def generate() -> dict[str, str]:
    """Name -> content of every file: random passwords, and what is derived from them."""
    passwords = {user: random.token_urlsafe(RANDOM_BYTES) for user in (*EDGE_USERS, *CLOUD_USERS)}
    database = random.token_urlsafe(RANDOM_BYTES)
    lines = {
        **{f"mqtt_{user}": password for user, password in passwords.items()},
        "database_password": database,
        "database_pgpass": f"*:*:{DATABASE}:{DATABASE}:{database}",  # libpq's password file
        "dashboard_password": random.token_urlsafe(RANDOM_BYTES),
        "api_token": random.token_urlsafe(RANDOM_BYTES),
        "grafana_password": random.token_urlsafe(RANDOM_BYTES),
    }
    return {
        **{name: f"{line}\n" for name, line in lines.items()},
        "mqtt_edge_users": password_file({user: passwords[user] for user in EDGE_USERS}),
        "mqtt_cloud_users": password_file({user: passwords[user] for user in CLOUD_USERS}),
    }


def write(directory: Path, files: Mapping[str, str], *, force: bool = False) -> None:
    """Write the files, each at once; ConfigError where one is there already, unless forced."""
    there = sorted(name for name in files if (directory / name).exists())
    if there and not force:
        raise ConfigError(
            f"{directory} holds secrets already ({there[0]}, …); they are kept. "
            "--force makes all anew"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(DIRECTORY_MODE)
        for name, content in files.items():
            fresh = directory / f".{name}.new"
            fresh.unlink(missing_ok=True)
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
            with os.fdopen(handle, "w") as file:
                file.write(content)
            fresh.chmod(FILE_MODE)  # whatever the umask
            fresh.replace(directory / name)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}; choose another directory") from None


def password_file(passwords: Mapping[str, str]) -> str:
    """Mosquitto's password file: user:$7$iterations$salt$hash, PBKDF2 over SHA-512, base64."""
    return "".join(f"{user}:{hashed(password)}\n" for user, password in passwords.items())


def hashed(password: str, salt: bytes = b"", iterations: int = PBKDF2_ITERATIONS) -> str:
    """A password as Mosquitto 2 keeps it; by default with a random salt."""
    salt = salt or random.token_bytes(SALT_BYTES)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    return f"$7${iterations}${_base64(salt)}${_base64(key)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
