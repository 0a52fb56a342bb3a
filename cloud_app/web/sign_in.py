"""Access to the page: one password for persons, one token for machines.

A session is a signed cookie that holds its number, the time of its end and a digest of the
password: a new password ends all sessions, and one that was signed out is over for every copy of
its cookie. A client can read its cookie, but cannot forge one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable
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
MAX_CHECKS = 4  # of passwords, of which three wait: the page's threads are for others, too
ENDED_KEY = "ended_sessions"  # of the store's settings: the ends of sessions that were signed out


class SignIn:
    """The password's hash, the key that signs sessions, the token of machines."""

    def __init__(
        self, password_hash: str, key: bytes, token: str = "", store: Store | None = None
    ) -> None:
        """store: keeps which sessions were signed out."""
        self.key = key
        self._store = store
        self._ended: dict[str, float] = _read_ended(store, self._ended_key)
        self._checks = 0
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
        check_secrets(password, token)
        known = store.read_setting(PASSWORD_KEY) or ""
        made = ""
        if not password and not known:
            made = password = secrets.token_urlsafe(15)
        if password and not (known and check_password_hash(known, password)):
            known = generate_password_hash(password)
            store.write_setting(PASSWORD_KEY, known)
        return cls(known, open_session_key(state / "session.key"), token, store), made

    @property
    def is_busy(self) -> bool:
        """Whether so many passwords wait to be compared that another one must not."""
        return self._checks >= MAX_CHECKS

    def is_password(self, given: str) -> bool:
        """Compare with the hash: one check at a time, as each takes 32 MB and 0.1 s by design."""
        self._checks += 1
        try:
            with self._one_at_a_time:
                return check_password_hash(self._hash, given)
        finally:
            self._checks -= 1

    def has_token(self, request: Request) -> bool:
        """Whether the request brings the API's token."""
        given = request.authorization
        if not self._token or given is None or given.type != "bearer" or not given.token:
            return False
        return hmac.compare_digest(given.token.encode(), self._token.encode())

    @property
    def _ended_key(self) -> str:
        """Of this installation, whose key signs its sessions: others keep their own."""
        return f"{ENDED_KEY}_{hashlib.sha256(self.key).hexdigest()[:16]}"

    def start_session(self) -> None:
        session.clear()
        session.permanent = True
        session["until_s"] = time.time() + SESSION_S
        session["of"] = self._of
        session["number"] = secrets.token_hex(16)

    def watch_session(self) -> Callable[[], bool]:
        """A function that says, also after the request, whether its session goes on."""
        until_s, number = session["until_s"], session["number"]
        return lambda: time.time() < until_s and number not in self._ended

    def end_session(self) -> None:
        """End the request's session: no copy of its cookie is accepted any more."""
        number, until_s = session.get("number"), session.get("until_s")
        if not isinstance(number, str) or not isinstance(until_s, float):
            return
        now_s = time.time()
        with self._one_at_a_time:
            ended = {each: end_s for each, end_s in self._ended.items() if end_s > now_s}
            self._ended = {**ended, number: until_s}
            if self._store is not None:
                self._store.write_setting(self._ended_key, json.dumps(self._ended))

    def find_session_end_s(self) -> float | None:
        """When the request's session ends; None where it has none, or one of an old password."""
        until_s, of = session.get("until_s"), session.get("of")
        number = session.get("number")
        if not isinstance(until_s, float) or not isinstance(of, str):
            return None
        if not isinstance(number, str) or number in self._ended:
            return None
        valid = time.time() < until_s and hmac.compare_digest(of.encode(), self._of.encode())
        return until_s if valid else None


def _read_ended(store: Store | None, key: str) -> dict[str, float]:
    """The sessions that were signed out, with the times at which they would have ended."""
    text = (store.read_setting(key) if store is not None else None) or "{}"
    try:
        return {str(number): float(end_s) for number, end_s in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


class Sessions(SecureCookieSessionInterface):
    """Flask's signed cookies, marked Secure where the request came by https."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def check_secrets(password: str, token: str) -> None:
    """ConfigError where the password or the token is given and too short."""
    if password and len(password) < MIN_PASSWORD_CHARS:
        raise ConfigError(f"the page's password needs at least {MIN_PASSWORD_CHARS} characters")
    if token and len(token) < MIN_TOKEN_CHARS:
        raise ConfigError(f"the API's token needs at least {MIN_TOKEN_CHARS} characters")


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
