"""`ddnn secrets`: makes every password of a deployment, as files that docker-compose.yml mounts.

A container sees a secret as a bind mount of its file, with the file's owner and mode, and runs as
a user of its own. So everyone may read the files, and only the owner may enter the directory
(0700): on the host nobody else reads a secret, and a container reads those that it mounts.
"""

from __future__ import annotations

import base64
import hashlib
import secrets as random
from collections.abc import Mapping
from pathlib import Path

import click

from ddnn.adapters.command import exit_codes
from ddnn.errors import ConfigError
from ddnn.runtime.whole_file import write_whole

# The users of the two brokers, one per role; each one's password is the file mqtt_<user>.
EDGE_USERS = ("device", "edge", "health")
CLOUD_USERS = ("bridge", "cloud", "dashboard", "health")
DATABASE = "ddnn"  # name of the database and of its user
RANDOM_BYTES = 24
# 24 random bytes cannot be guessed, and the broker's only thread computes these at every connect.
PBKDF2_ITERATIONS = 1_000
SALT_BYTES = 12
DIRECTORY_MODE, FILE_MODE = 0o700, 0o444

EPILOG = """\b
Example:
  ddnn secrets secrets            then: docker compose up
"""


@click.command(epilog=EPILOG)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace the secrets that exist.")
def secrets(directory: Path, force: bool) -> None:
    """Make the passwords of a deployment in DIRECTORY; print the dashboard's password once."""
    with exit_codes():
        files = generate_secrets()
        write_secrets(directory, files, force=force)
        click.echo(f"{len(files)} files in {directory}; keep it private and out of git")
        if force:
            click.echo(
                "a database that exists keeps its old password: "
                "ALTER ROLE, or start it with an empty volume"
            )
        click.echo(f"password of the dashboard: {files['dashboard_password']}", nl=False)


def generate_secrets() -> dict[str, str]:
    """Make random passwords and what is derived from them: file name -> content."""
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
        "mqtt_edge_users": format_password_file({user: passwords[user] for user in EDGE_USERS}),
        "mqtt_cloud_users": format_password_file({user: passwords[user] for user in CLOUD_USERS}),
    }


def write_secrets(directory: Path, files: Mapping[str, str], *, force: bool = False) -> None:
    """Write each file atomically; ConfigError where one exists, unless `force` is set."""
    existing = sorted(name for name in files if (directory / name).exists())
    if existing and not force:
        raise ConfigError(
            f"{directory} holds secrets already ({existing[0]}, …); they are kept. "
            "--force replaces all of them"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(DIRECTORY_MODE)
        for name, content in files.items():
            write_whole(directory / name, content.encode(), FILE_MODE)
    except OSError as error:
        raise ConfigError(f"{directory}: {error.strerror}; choose another directory") from None


def format_password_file(passwords: Mapping[str, str]) -> str:
    """Mosquitto's password file: user:$7$iterations$salt$hash, PBKDF2 over SHA-512, base64."""
    return "".join(f"{user}:{hash_password(password)}\n" for user, password in passwords.items())


def hash_password(password: str, salt: bytes = b"", iterations: int = PBKDF2_ITERATIONS) -> str:
    """A password as Mosquitto 2 stores it; with a random salt where none is given."""
    salt = salt or random.token_bytes(SALT_BYTES)
    key = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    return f"$7${iterations}${_encode_base64(salt)}${_encode_base64(key)}"


def _encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
