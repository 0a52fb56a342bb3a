"""A row of the table of routes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from flask import request

from cloud_app.web.messages import Nothing, Problem

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
HTML = "text/html"
TEXT = "text/plain"
EVENT_STREAM = "text/event-stream"
PNG = "image/png"


@dataclass(frozen=True, slots=True)
class Route:
    """What a path takes and gives.

    A struct for a message, or the media type of what is none. `{name}` in the path is a field of
    `asks`, as the query's are.
    """

    method: str
    path: str
    answer: Callable[[Any], Any]
    gives: Any
    about: str
    asks: type[msgspec.Struct] = Nothing
    takes: type[msgspec.Struct] | None = None  # the body
    takes_as: str = JSON
    code: int = 200
    refuses: Any = Problem
    open: bool = False  # without sign-in

    @property
    def name(self) -> str:
        return self.answer.__name__


def find_requester() -> str:
    """The address that the request in work came from."""
    return request.remote_addr or "unknown"
