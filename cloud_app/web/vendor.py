"""The files of the chart library, from the package that contains them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from flask import Blueprint, Response, abort, send_from_directory

FILES = ("uPlot.iife.js", "uPlot.min.css")

vendor = Blueprint("vendor", __name__)


@vendor.get("/static/vendor/<name>")
def send_library_file(name: str) -> Response:
    # Not imported: the package's Python part requires a notebook.
    spec = find_spec("uplot")
    if name not in FILES or spec is None or not spec.submodule_search_locations:
        abort(404)
    return send_from_directory(Path(spec.submodule_search_locations[0]) / "static", name)
