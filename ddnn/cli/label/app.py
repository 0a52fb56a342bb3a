"""The page's server: samples as JSON, pictures, and changes. It serves this machine alone."""

from __future__ import annotations

import threading
from collections import Counter
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, request, send_from_directory

from ddnn.data.recordings import UNLABELLED
from ddnn.data.recordings.labelling import LabelBoard, LabelledSample
from ddnn.errors import ConfigError
from ddnn.runtime.pictures import list_formats

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
HEADER = "X-DDNN"  # a form of another page cannot send it
SMALL_PX = 240
MAX_REQUEST_BYTES = 1 << 20
MAX_NAMES = 5000
POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'none'"


def create_app(board: LabelBoard) -> Flask:
    """Make the application. Requests by other names than this machine's are refused: another
    site's name may lead here."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    lock = threading.Lock()

    @app.before_request
    def refuse_others() -> tuple[Response, int] | None:
        if urlsplit(f"//{request.host}").hostname not in LOCAL_HOSTS:
            return jsonify(error=f"open the page at 127.0.0.1, not at {request.host}"), 403
        if request.method != "GET" and not request.headers.get(HEADER):
            return jsonify(error=f"a change needs the header {HEADER}"), 403
        return None

    @app.after_request
    def harden(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.errorhandler(ConfigError)
    def report(error: ConfigError) -> tuple[Response, int]:
        return jsonify(error=str(error)), 400

    @app.get("/")
    def show_page() -> Response:
        return send_from_directory("page", "label.html")

    @app.get("/page/<name>")
    def send_file(name: str) -> Response:
        return send_from_directory("page", name)

    @app.get("/api/samples")
    def list_samples() -> Response:
        with lock:
            return jsonify(describe(board))

    @app.get("/picture/<name>/<camera>")
    def send_picture(name: str, camera: str) -> Response:
        with lock:
            sample = board.find(name)
            file = sample.views.get(camera) or sample.aside.get(camera)
        if file is None:
            raise ConfigError(f"{name} has no picture of {camera}")
        return Response(
            make_picture(file, small="large" not in request.args), mimetype="image/jpeg"
        )

    @app.post("/api/<action>")
    def change(action: str) -> tuple[Response, int] | Response:
        given = request.get_json()
        names = given.get("samples", [])
        if not isinstance(names, list) or len(names) > MAX_NAMES:
            raise ConfigError(f"samples: expected a list of at most {MAX_NAMES} names")
        with lock:
            match action:
                case "label":
                    board.set_label(names, str(given.get("label", "")))
                case "drop":
                    board.drop(names)
                case "view":
                    board.toggle_view(str(given.get("sample")), str(given.get("camera")))
                case "undo":
                    board.undo()
                case _:
                    return jsonify(error=f"no action {action}"), 404
            return jsonify(describe(board))

    return app


def describe(board: LabelBoard) -> dict[str, Any]:
    """All samples, as the page shows them."""
    samples = board.samples.values()
    counts = Counter(sample.label for sample in samples if not sample.is_dropped)
    return {
        "directory": str(board.path),
        "cameras": board.cameras,
        "unlabelled": UNLABELLED,
        "classes": [{"name": name, "samples": counts[name]} for name in board.classes],
        "waiting": counts[UNLABELLED],
        "dropped": sum(sample.is_dropped for sample in samples),
        "undoable": board.undoable,
        "samples": [describe_sample(sample) for sample in samples],
    }


def describe_sample(sample: LabelledSample) -> dict[str, Any]:
    """A row of the page. views: by camera, whether the view is in use (not taken out)."""
    return {
        "name": sample.name,
        "label": sample.label,
        "burst": sample.burst,
        "dropped": sample.is_dropped,
        "views": {**dict.fromkeys(sample.aside, False), **dict.fromkeys(sample.views, True)},
    }


def make_picture(file: Any, *, small: bool) -> bytes:
    """The picture as JPEG, scaled down for the sheet."""
    from PIL import Image

    if not small and file.suffix == ".jpg":
        return bytes(file.read_bytes())
    try:
        with Image.open(file, formats=list_formats()) as picture:
            picture.draft("RGB", (SMALL_PX, SMALL_PX))
            shown = picture.convert("RGB")
    except OSError as error:
        raise ConfigError(f"{file.name}: cannot be read: {error}") from None
    if small:
        shown.thumbnail((SMALL_PX, SMALL_PX))
    buffer = BytesIO()
    shown.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
