"""The chart library's files, from the package that carries them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from flask import Blueprint, Response, abort, send_from_directory

FILES = ("uPlot.iife.js", "uPlot.min.css")

vendor = Blueprint("vendor", __name__)


@vendor.get("/static/vendor/<name>")
def file(name: str) -> Response:
    # Found, not imported: the package's Python side wants a notebook around it.
    spec = find_spec("uplot")
    if name not in FILES or spec is None or not spec.submodule_search_locations:
        abort(404)
    return send_from_directory(Path(spec.submodule_search_locations[0]) / "static", name)
