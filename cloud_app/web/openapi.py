"""The OpenAPI document, made from the table of routes and the structs that they name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from cloud_app.web.route import JSON, Route
from ddnn.runtime.service import find_ddnn_version

_REF = "#/components/schemas/{name}"
_SECURITY = {
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "",
        "description": "For persons who signed in at /login. A page without sign-in needs none.",
    },
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "For machines, which only read.",
    },
}
_CSRF = {
    "name": "X-CSRF-Token",
    "in": "header",
    "required": True,
    "description": "`csrf` of /api/v1/state, which belongs to the session.",
    "schema": {"type": "string"},
}


def make_document(routes: Sequence[Route], cookie: str) -> dict[str, Any]:
    """Make the document: OpenAPI 3.1, with the JSON Schema that msgspec generates."""
    structs = [
        t for route in routes for t in (route.gives, route.takes, route.refuses) if _is_struct(t)
    ]
    schemas, components = msgspec.json.schema_components(structs, ref_template=_REF)
    of = dict(zip(map(repr, structs), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _describe_operation(route, of)
    security = {**_SECURITY, "session": {**_SECURITY["session"], "name": cookie}}
    made: dict[str, Any] = _convert_patterns(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "ddnn",
                "version": find_ddnn_version(),
                "summary": "Exits, accuracy, bytes and nodes of a ddnn site.",
            },
            "paths": paths,
            "components": {"schemas": components, "securitySchemes": security},
            "security": [{"session": []}, {"token": []}],
        }
    )
    return made


def _describe_operation(route: Route, of: dict[str, Any]) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "The request succeeded."}
    if route.gives is not None:
        done["content"] = _describe_content(route.gives, of)
    refused = {
        "description": "Why the request failed.",
        "content": _describe_content(route.refuses, of),
    }
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.about,
        "responses": {str(route.code): done, "default": refused},
    }
    parameters = [*_describe_parameters(route)]
    if route.method == "POST" and route.takes_as == JSON:
        parameters.append(_CSRF)
    if parameters:
        operation["parameters"] = parameters
    if route.takes is not None:
        content = {route.takes_as: {"schema": of[repr(route.takes)]}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.open:
        operation["security"] = []
    elif route.method == "POST":
        operation["security"] = [{"session": []}]
    return operation


def _describe_content(gives: Any, of: dict[str, Any]) -> dict[str, Any]:
    if _is_struct(gives):
        return {JSON: {"schema": of[repr(gives)]}}
    return {gives.split(";")[0]: {"schema": {"type": "string"}}}


def _describe_parameters(route: Route) -> Iterable[dict[str, Any]]:
    _, components = msgspec.json.schema_components([route.asks], ref_template=_REF)
    (schema,) = components.values()
    for name, of in schema["properties"].items():
        in_path = f"{{{name}}}" in route.path
        yield {
            "name": name,
            "in": "path" if in_path else "query",
            "required": name in schema["required"],
            "schema": of,
        }


def _is_struct(what: object) -> bool:
    return what is not None and not isinstance(what, str)


def _convert_patterns(schema: Any) -> Any:
    r"""Convert patterns to JSON Schema, whose `$` is the end of the text: Python's `\Z`."""
    if isinstance(schema, dict):
        return {
            key: re.sub(r"\\Z$", "$", value)
            if key == "pattern" and isinstance(value, str)
            else _convert_patterns(value)
            for key, value in schema.items()
        }
    return (
        [_convert_patterns(item) for item in schema] if isinstance(schema, list | tuple) else schema
    )
