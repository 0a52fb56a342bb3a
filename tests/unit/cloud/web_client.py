"""Requests to the API by a test client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from ddnn.protocol.messages import Answer

Make = Callable[..., Answer]
Away = Callable[[], None]


def get(client: FlaskClient, path: str, code: int = 200) -> Any:
    response = client.get(path)
    assert response.status_code == code, response.text
    return response.json


def post(client: FlaskClient, path: str, body: object = None) -> TestResponse:
    token = client.get("/api/v1/state").json["csrf"]
    return client.post(path, json=body, headers={"X-CSRF-Token": token})
