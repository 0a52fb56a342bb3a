"""The page below a path of a reverse proxy."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from cloud_app.store import Store
from cloud_app.web import create_app
from cloud_app.web.prefix import PathPrefix
from tests.site_builder import FakeSite

PROXY = "10.0.0.9"


@pytest.fixture
def proxied(store: Store) -> FlaskClient:
    app = create_app(store, FakeSite(), sign_in=None)
    app.wsgi_app = PathPrefix(app.wsgi_app, PROXY)  # type: ignore[method-assign, assignment]
    return app.test_client()


def get(client: FlaskClient, path: str, prefix: str, peer: str = PROXY) -> Any:
    return client.get(
        path,
        headers={"X-Forwarded-Prefix": prefix},
        environ_overrides={"REMOTE_ADDR": peer},
        buffered=True,
    )


@pytest.mark.parametrize("prefix", ["/ddnn", "/ddnn/", "/my/site.one"])
@pytest.mark.parametrize("stripped", [True, False])
def test_every_link_stays_below_the_prefix(
    proxied: FlaskClient, prefix: str, stripped: bool
) -> None:
    base = prefix.rstrip("/")
    before = "" if stripped else base
    page = get(proxied, f"{before}/", prefix)
    assert page.status_code == 200
    linked = re.findall(r'(?:src|href|action)="([^"#]+)"', page.text)
    assert linked
    assert all(path.startswith(f"{base}/") for path in linked)
    assert f'data-prefix="{base}"' in page.text
    for path in linked:
        asked = path.removeprefix(base) if stripped else path
        assert get(proxied, asked, prefix).status_code == 200
    moved = get(proxied, f"{before}/login", prefix)
    assert moved.headers["Location"] == f"{base}/"


@pytest.mark.parametrize(
    "prefix", ["//evil.example", "/a//b", "/a b", '/"onload=x', "evil", "/" + "a" * 65, "/ä", ""]
)
def test_a_prefix_that_is_no_path_is_not_used(proxied: FlaskClient, prefix: str) -> None:
    assert 'data-prefix=""' in get(proxied, "/", prefix.encode().decode("latin-1")).text


def test_a_prefix_of_anybody_else_is_not_used(proxied: FlaskClient) -> None:
    page = get(proxied, "/", "/ddnn", peer="10.0.0.8")
    assert 'data-prefix=""' in page.text
    assert "/ddnn/static" not in page.text


def test_no_script_names_a_path_without_the_prefix() -> None:
    from pathlib import Path

    import cloud_app

    folder = Path(cloud_app.__file__).parent
    for script in (folder / "static").glob("*.js"):
        for line in script.read_text().splitlines():
            for path in re.findall(r'["`](/(?:api|login|logout|metrics|static)[^"`]*)', line):
                assert re.search(r"\b(url|read|send|command)\(\s*[\"`]/", line), (script, path)
    for template in (folder / "templates").glob("*.html"):
        assert not re.search(r'(?:href|src|action)="/', template.read_text())
