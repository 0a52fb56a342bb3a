"""Who may look: one password for people, one token for machines.

A session is a signed cookie that holds until when it is valid and for which password: another
password ends it. It can be read by its owner, but not be made.
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
LEAST_CHARS = 8  # of a password that is given
LEAST_TOKEN_CHARS = 16
KEY_BYTES = 32


class SignIn:
    """The password's hash, the key that signs sessions, the token of machines."""

    def __init__(self, password_hash: str, key: bytes, token: str = "") -> None:
        self.key = key
        self._hash, self._token = password_hash, token
        # Differs from password to password, and tells nothing of it.
        self._of = hmac.new(key, password_hash.encode(), hashlib.sha256).hexdigest()[:32]
        self._one_at_a_time = threading.Lock()

    @classmethod
    def open(
        cls, store: Store, state: Path, *, password: str = "", token: str = ""
    ) -> tuple[SignIn, str]:
        """With the password given, or the one of before, or a new one, which is returned.

        It is not kept anywhere: print it. ConfigError where password or token are too short.
        """
        if password and len(password) < LEAST_CHARS:
            raise ConfigError(f"the page's password needs at least {LEAST_CHARS} characters")
        if token and len(token) < LEAST_TOKEN_CHARS:
            raise ConfigError(f"the API's token needs at least {LEAST_TOKEN_CHARS} characters")
        known = store.setting(PASSWORD_KEY) or ""
        made = ""
        if not password and not known:
            made = password = secrets.token_urlsafe(15)
        if password and not (known and check_password_hash(known, password)):
            known = generate_password_hash(password)
            store.set_setting(PASSWORD_KEY, known)
        return cls(known, session_key(state / "session.key"), token), made

    def is_password(self, given: str) -> bool:
        """Each check costs 32 MB and a tenth of a second, by design; so one at a time."""
        with self._one_at_a_time:
            return check_password_hash(self._hash, given)

    def is_machine(self, request: Request) -> bool:
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

    def session_until_s(self) -> float | None:
        """When the request's session ends; None: there is none, or of another password."""
        until_s, of = session.get("until_s"), session.get("of")
        if not isinstance(until_s, float) or not isinstance(of, str):
            return None
        valid = time.time() < until_s and hmac.compare_digest(of.encode(), self._of.encode())
        return until_s if valid else None


class Sessions(SecureCookieSessionInterface):
    """Flask's signed cookies, marked Secure wherever the request came by https."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def session_key(file: Path) -> bytes:
    """The key in the file, made at first start; one that others can read is replaced."""
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
