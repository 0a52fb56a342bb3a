"""A page with a password, and a browser that signs in."""

from __future__ import annotations

import re
from pathlib import Path

from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cloud_app.store import Store
from cloud_app.web import SignIn, create_app
from tests.site_builder import FakeSite

PASSWORD = "correct horse"
TOKEN = "a-token-of-machines"


def make_app(store: Store, state: Path, password: str = PASSWORD) -> Flask:
    known, _ = SignIn.open(store, state, password=password, token=TOKEN)
    site = FakeSite()
    app = create_app(store, site, sign_in=known)
    app.extensions["tested_site"] = site
    return app


def send_password(client: FlaskClient, password: str = PASSWORD, **more: object) -> TestResponse:
    form = client.get("/login", **more).text  # type: ignore[arg-type]
    (csrf,) = re.findall(r'name="csrf" value="([^"]+)"', form)
    return client.post("/login", data={"password": password, "csrf": csrf}, **more)  # type: ignore[arg-type]
