"""Access to the page: one password for persons, one token for machines.

A session is a signed cookie that holds the time of its end and a digest of the password: a new
password ends all sessions. A client can read its cookie, but cannot forge one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import threading
import time
from pathlib import Path

from flask import Flask, Request, request, session
from flask.sessions import SecureCookieSessionInterface
from werkzeug.security import check_password_hash, generate_password_hash

from cloud_app.store import Store
from ddnn.errors import ConfigError

SESSION_S = 12 * 3600
PASSWORD_KEY = "page_password"  # of the store's settings: the hash  # noqa: S105
MIN_PASSWORD_CHARS = 8  # of a password that a person chooses
MIN_TOKEN_CHARS = 16
KEY_BYTES = 32


class SignIn:
    """The password's hash, the key that signs sessions, the token of machines."""

    def __init__(self, password_hash: str, key: bytes, token: str = "") -> None:
        self.key = key
        self._hash, self._token = password_hash, token
        # Differs from password to password, and reveals nothing about it.
        self._of = hmac.new(key, password_hash.encode(), hashlib.sha256).hexdigest()[:32]
        self._one_at_a_time = threading.Lock()

    @classmethod
    def open(
        cls, store: Store, state: Path, *, password: str = "", token: str = ""
    ) -> tuple[SignIn, str]:
        """Open with `password`, else with the stored one, else with a new random one.

        The second value is the new password, else empty. Only its hash is stored: print it.
        ConfigError where password or token are too short.
        """
        if password and len(password) < MIN_PASSWORD_CHARS:
            raise ConfigError(f"the page's password needs at least {MIN_PASSWORD_CHARS} characters")
        if token and len(token) < MIN_TOKEN_CHARS:
            raise ConfigError(f"the API's token needs at least {MIN_TOKEN_CHARS} characters")
        known = store.read_setting(PASSWORD_KEY) or ""
        made = ""
        if not password and not known:
            made = password = secrets.token_urlsafe(15)
        if password and not (known and check_password_hash(known, password)):
            known = generate_password_hash(password)
            store.write_setting(PASSWORD_KEY, known)
        return cls(known, open_session_key(state / "session.key"), token), made

    def is_password(self, given: str) -> bool:
        """Compare with the hash: one check at a time, as each takes 32 MB and 0.1 s by design."""
        with self._one_at_a_time:
            return check_password_hash(self._hash, given)

    def has_token(self, request: Request) -> bool:
        """Whether the request brings the API's token."""
        given = request.authorization
        if not self._token or given is None or given.type != "bearer" or not given.token:
            return False
        return hmac.compare_digest(given.token.encode(), self._token.encode())

    def start_session(self) -> None:
        session.clear()
        session.permanent = True
        session["until_s"] = time.time() + SESSION_S
        session["of"] = self._of

    def find_session_end_s(self) -> float | None:
        """When the request's session ends; None where it has none, or one of an old password."""
        until_s, of = session.get("until_s"), session.get("of")
        if not isinstance(until_s, float) or not isinstance(of, str):
            return None
        valid = time.time() < until_s and hmac.compare_digest(of.encode(), self._of.encode())
        return until_s if valid else None


class Sessions(SecureCookieSessionInterface):
    """Flask's signed cookies, marked Secure where the request came by https."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def open_session_key(file: Path) -> bytes:
    """Read the key from the file, or make it; a key that others can read is replaced."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        key = file.read_bytes()
        if len(key) >= KEY_BYTES and not mode & 0o077:
            return key
        file.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(f"the page's session key cannot be read: {error}") from error
    key = secrets.token_bytes(KEY_BYTES)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(key)
    except OSError as error:
        raise ConfigError(f"the page's session key cannot be written: {error}") from error
    return key
