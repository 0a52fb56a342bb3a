"""The OpenAPI document is valid, lists every route, and describes its behaviour correctly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from cloud_app.store import Store
from cloud_app.views import OffloadView
from cloud_app.web import create_app
from tests.answer_builder import make_answer
from tests.site_builder import FakeDemo, FakeSite, make_offload

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = 25  # of each route


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('web')}/cloud.db")
    exit_trace: list[Any] = [("local", 1, 0.4), ("edge", 1, 0.6), ("cloud", 1, 0.7)]
    votes = {"cam1": (1, 0.5)}
    store.save([("home", make_answer(i, exit_trace=exit_trace, votes=votes)) for i in range(30)])
    store.set_label("home", 3, 2, "me", 1.0)
    store.add_event(1.0, "home", "cam1", "died")
    offloaded = [
        OffloadView("home", "edge", 0.5, make_offload("live", "lost", missing=["worker2"]))
    ]
    live = FakeSite(demo=FakeDemo(), offloaded=offloaded)
    yield create_app(store, live, sign_in=None)
    store.close()


def read_document(app: Flask) -> dict[str, Any]:
    document: dict[str, Any] = app.test_client().get("/api/v1/openapi.json").json
    return document


def test_the_document_is_valid(app: Flask) -> None:
    document = read_document(app)
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"] == "3.1.0"
    assert (
        app.config["SESSION_COOKIE_NAME"]
        == (document["components"]["securitySchemes"]["session"]["name"])
    )


def test_the_document_and_the_app_have_the_same_routes(app: Flask) -> None:
    there = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD"}
        if not rule.rule.startswith("/static/")
    }
    expected = {
        (path, method.upper())
        for path, operations in read_document(app)["paths"].items()
        for method in operations
    }
    assert there == expected
    assert len(there) > 20


def test_the_document_states_who_may_use_each_route(app: Flask) -> None:
    for path, operations in read_document(app)["paths"].items():
        for method, operation in operations.items():
            security = operation.get("security")
            if path in ("/healthz", "/readyz", "/login"):
                assert security == []
            else:
                assert security == (None if method == "get" else [{"session": []}])


def test_each_operation_has_a_unique_name_and_a_summary(app: Flask) -> None:
    operations = [o for path in read_document(app)["paths"].values() for o in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"].endswith(".") for operation in operations)


def test_every_input_gets_a_reply_that_matches_its_schema(app: Flask) -> None:
    document = read_document(app)
    # A stream never ends: tests/integration/test_web.py has it.
    del document["paths"]["/api/v1/stream"]
    token = app.test_client().get("/api/v1/state")
    headers = {
        "X-CSRF-Token": token.json["csrf"],
        "Cookie": token.headers["Set-Cookie"].split(";")[0],
    }
    schema = schemathesis.openapi.from_dict(document)
    schema.app = app
    tried = []
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy())
        def holds(case: schemathesis.Case) -> None:
            case.headers = {**(case.headers or {}), **headers}
            case.call_and_validate(checks=CHECKS)

        holds()
        tried.append(operation.path)
    assert len(tried) == sum(len(operations) for operations in document["paths"].values())


def test_the_document_is_the_same_at_every_start(tmp_path: Path) -> None:
    """Only the name of the cookie differs."""
    store = Store(f"sqlite:///{tmp_path}/cloud.db")
    documents = []
    for _ in range(2):
        document = read_document(create_app(store, FakeSite(), sign_in=None))
        del document["components"]["securitySchemes"]["session"]["name"]
        documents.append(document)
    assert documents[0] == documents[1]
    store.close()
