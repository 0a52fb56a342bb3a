"""A row of the table of routes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from flask import request

from cloud_app.web.messages import NoParameters, Problem

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
HTML = "text/html"
TEXT = "text/plain"
EVENT_STREAM = "text/event-stream"
PNG = "image/png"


@dataclass(frozen=True, slots=True)
class Route:
    """A path, the messages that it takes and gives, and the method that answers.

    `gives` and `refuses` are the struct of the reply, or a media type where it is not JSON. The
    fields of `asks` come from the path, as `{name}`, and from the query.
    """

    method: str
    path: str
    answer: Callable[[Any], Any]
    gives: Any
    about: str
    asks: type[msgspec.Struct] = NoParameters
    takes: type[msgspec.Struct] | None = None  # the body
    takes_as: str = JSON
    code: int = 200
    refuses: Any = Problem
    open: bool = False  # anyone may use it, without signing in

    @property
    def name(self) -> str:
        return self.answer.__name__


def find_requester() -> str:
    """The address that sent the current request."""
    return request.remote_addr or "unknown"
