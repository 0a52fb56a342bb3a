"""The path below which a reverse proxy shows the page, from its X-Forwarded-Prefix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

HEADER = "HTTP_X_FORWARDED_PREFIX"
# No "//": a browser would take what follows for a host.
PREFIX = re.compile(r"(/[A-Za-z0-9._~-]{1,64}){1,8}", re.ASCII)

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class PathPrefix:
    """A WSGI app below the path that the trusted proxy names; other peers' headers do not count.

    The proxy may leave the prefix in the path that it requests, or remove it.
    """

    def __init__(self, application: Application, trusted_proxy: str) -> None:
        self._application, self._proxy = application, trusted_proxy

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        prefix = environ.pop(HEADER, "").strip().rstrip("/")
        trusted = self._proxy in ("*", environ.get("REMOTE_ADDR"))
        if trusted and PREFIX.fullmatch(prefix):
            environ["SCRIPT_NAME"] = prefix
            path = environ.get("PATH_INFO", "")
            if path == prefix or path.startswith(prefix + "/"):
                environ["PATH_INFO"] = path[len(prefix) :] or "/"
        return self._application(environ, start_response)
