"""The WSGI app: the table of routes, who may use it, its headers and its errors."""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import re
import secrets
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from flask import Flask, Response, g, redirect, render_template, request, session, url_for
from flask_limiter import Limiter
from flask_wtf.csrf import CSRFError, CSRFProtect, generate_csrf  # type: ignore[import-untyped]
from werkzeug.exceptions import (
    Forbidden,
    HTTPException,
    MethodNotAllowed,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
    UnsupportedMediaType,
)
from werkzeug.wrappers import Response as AnyResponse

from cloud_app.store import NotFound, Store
from cloud_app.views import LiveSite
from cloud_app.web import openapi
from cloud_app.web.board import Streams
from cloud_app.web.messages import GivePassword, NoParameters, Problem, SiteQuery
from cloud_app.web.route import FORM, HTML, JSON, Route, find_requester
from cloud_app.web.routes import Api
from cloud_app.web.sign_in import KEY_BYTES, SESSION_S, Sessions, SignIn
from cloud_app.web.vendor import vendor
from ddnn.errors import DdnnError, LinkError

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 14
IPV6_USER_BITS = 64  # a user has all addresses of such a network
LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE)
# Attempts to sign in. There is no limit on all addresses together, by which strangers could keep
# the owner out: passwords are compared one after the other, 0.1 s each.
PER_ADDRESS = "5 per minute; 30 per hour"

_HEADERS = {
    # Only this server's own files are allowed: no inline script or style, no other host, no frame.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_ASSETS = frozenset({"static", "vendor.send_library_file"})


def create_app(
    store: Store, live: LiveSite, *, sign_in: SignIn | None, report: Path | None = None
) -> Flask:
    """Make the page and its API. Without `sign_in` it answers only requests to a loopback name.

    report: the HTML file of `ddnn evaluate --report`, to which the page links. The server's threads
    use `store` and `live`.
    """
    app = Flask("cloud_app")
    app.jinja_options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    key = sign_in.key if sign_in else secrets.token_bytes(KEY_BYTES)
    app.session_interface = Sessions()
    app.config.update(
        SECRET_KEY=key,
        # All ports of a host share their cookies: each installation has a name of its own.
        SESSION_COOKIE_NAME=f"ddnn-{sha256(b'cookie' + key).hexdigest()[:8]}",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=SESSION_S,
        MAX_CONTENT_LENGTH=MAX_BODY_BYTES,
        MAX_FORM_MEMORY_SIZE=MAX_BODY_BYTES,
        PROVIDE_AUTOMATIC_OPTIONS=False,
        WTF_CSRF_FIELD_NAME="csrf",
        WTF_CSRF_HEADERS=["X-CSRF-Token"],
        WTF_CSRF_TIME_LIMIT=None,  # a token is valid as long as its session
        WTF_CSRF_SSL_STRICT=False,  # it requires a Referer, which this page never sends
    )
    streams = app.extensions["streams"] = Streams()
    api = Api(store, live, streams)
    limiter = Limiter(find_network, app=app, strategy="moving-window", storage_uri="memory://")
    routes = [*Pages(api, sign_in, report).routes(), *api.routes()]

    def read_openapi_document(_ask: NoParameters) -> Response:
        return Response(described, mimetype=JSON)

    routes.append(
        Route(
            "GET", "/api/v1/openapi.json", read_openapi_document, dict[str, Any], "This document."
        )
    )
    described = msgspec.json.encode(
        openapi.make_document(routes, app.config["SESSION_COOKIE_NAME"])
    )
    install_guard(app, sign_in, {route.name for route in routes if route.open} | _ASSETS)
    CSRFProtect(app)  # after the guard, so that a stranger gets 401 and no error about tokens
    app.register_blueprint(vendor)
    for route in routes:
        rule = route.path.replace("{", "<").replace("}", ">")
        app.add_url_rule(rule, route.name, _make_view(route), methods=[route.method])
    login: Any = limiter.limit(PER_ADDRESS)(app.view_functions["sign_in"])
    app.view_functions["sign_in"] = login
    _install_handlers(app, limiter)
    return app


def find_network() -> str:
    """Whose attempts to sign in count together: an address, or an IPv6 network of one user."""
    try:
        address = ipaddress.ip_address(find_requester())
    except ValueError:
        return find_requester()
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    bits = address.max_prefixlen if address.version == 4 else IPV6_USER_BITS
    return str(ipaddress.ip_network((address, bits), strict=False))


def _make_view(route: Route) -> Callable[..., AnyResponse]:
    def view(**in_path: str) -> AnyResponse:
        # Values in a path or a query are text: `strict=False` reads numbers from it.
        asked = {**request.args.to_dict(), **in_path}
        message: Any = msgspec.convert(asked, route.asks, strict=False)
        if route.takes is not None and route.takes_as == FORM:
            message = msgspec.convert(request.form.to_dict(), route.takes)
        elif route.takes is not None:
            if request.mimetype != JSON:
                raise UnsupportedMediaType(f"the body must be {JSON}")
            message = msgspec.json.decode(request.get_data(), type=route.takes)
        reply = route.answer(message)
        if isinstance(reply, AnyResponse):
            return reply
        return Response(msgspec.json.encode(reply), route.code, mimetype=JSON)

    view.__name__ = route.name
    return view


# ---------------------------------------------------------------------- pages


class Pages:
    """The routes that answer with HTML: the page, and the form to sign in."""

    def __init__(self, api: Api, sign_in: SignIn | None, report: Path | None) -> None:
        self._api, self._sign_in, self._report = api, sign_in, report

    def routes(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/", self.show_page, HTML, "The page."),
            Route(
                "GET",
                "/login",
                self.show_sign_in_form,
                HTML,
                "The form to sign in.",
                refuses=HTML,
                open=True,
            ),
            Route(
                "POST",
                "/login",
                self.sign_in,
                None,
                "Sign in.",
                takes=GivePassword,
                takes_as=FORM,
                code=303,
                refuses=HTML,
                open=True,
            ),
            Route("POST", "/logout", self.sign_out, None, "Sign out.", code=204),
            *(
                [Route("GET", "/report", self.show_report, HTML, "The evaluation of the network.")]
                if self._report
                else []
            ),
        )

    def show_page(self, _ask: NoParameters) -> Response:
        # The page carries the state of the API, so that its first paint shows the numbers.
        state = json.loads(self._api.make_state(SiteQuery()))
        return Response(render_template("page.html", state=state, report=bool(self._report)))

    def show_report(self, _ask: NoParameters) -> Response:
        try:
            return Response((self._report or Path()).read_bytes(), mimetype=HTML)
        except OSError as error:
            raise ServiceUnavailable(f"the report cannot be read: {error.strerror}") from None

    def show_sign_in_form(self, _ask: NoParameters) -> AnyResponse:
        if self._sign_in is None or self._sign_in.find_session_end_s():
            return redirect(url_for("show_page"), 303)
        return _render_sign_in_form("")

    def sign_in(self, form: GivePassword) -> AnyResponse:
        if self._sign_in is None:
            return redirect(url_for("show_page"), 303)
        if self._sign_in.is_busy:
            return _render_sign_in_form("Too many attempts at once; try again in a second.", 503)
        if not self._sign_in.is_password(form.password):
            log.warning("sign-in refused: wrong password from %s", request.remote_addr)
            return _render_sign_in_form("That is not the password.", 403)
        self._sign_in.start_session()
        return redirect(url_for("show_page"), 303)

    def sign_out(self, _ask: NoParameters) -> Response:
        try:
            if self._sign_in is not None:
                self._sign_in.end_session()
        finally:  # also where the database is away: then this process alone knows that it is over
            session.clear()
        return Response(status=204)


def _render_sign_in_form(error: str, code: int = 200) -> Response:
    return Response(render_template("login.html", error=error, csrf=generate_csrf()), code)


# ---------------------------------------------------------------------- guard


def install_guard(
    app: Flask, sign_in: SignIn | None, open_to_all: set[str] | frozenset[str]
) -> None:
    """Check before every request who sends it, and under which host name.

    Sets `g.person` (signed in while `g.is_session_open()`), `g.machine` (has the API's token), and
    `g.stranger` (neither, where one of them is asked for).
    """

    def require_loopback_name() -> None:
        # A foreign host name that resolves to this machine must not reach the page (DNS rebinding).
        if not LOOPBACK.fullmatch(request.environ.get("HTTP_HOST", "")):
            raise Forbidden(
                "a page without sign-in answers to localhost, 127.0.0.1 and [::1] only; "
                "for other names start it with --sign-in on"
            )

    def identify_requester() -> None:
        g.person = g.machine = False
        g.stranger = sign_in is not None
        g.is_session_open = lambda: True
        if sign_in is None:
            return require_loopback_name()
        if request.endpoint is None:
            return None  # no such path: anyone may get the 404
        if sign_in.find_session_end_s() is not None:
            g.person, g.stranger = True, False
            g.is_session_open = sign_in.watch_session()
        elif sign_in.has_token(request):
            if request.method not in ("GET", "HEAD"):
                raise Forbidden("the API's token only reads; a person must sign in for this")
            g.machine, g.stranger = True, False
        elif request.endpoint not in open_to_all:
            raise Unauthorized(
                "sign in at /login, or bring the API's token (Authorization: Bearer)"
            )
        return None

    app.before_request(identify_requester)


# ----------------------------------------------------------- headers, errors


def _install_handlers(app: Flask, limiter: Limiter) -> None:
    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(_HEADERS)
        if request.endpoint == "show_report":  # styles stand in the file; nothing else may come
            response.headers["Content-Security-Policy"] = _REPORT_POLICY
        if request.endpoint not in _ASSETS or response.status_code >= 400:
            # A cache must never deliver old numbers.
            response.headers["Cache-Control"] = "no-store"
        return response

    def make_problem(code: int, error: str, headers: dict[str, str] | None = None) -> AnyResponse:
        if request.endpoint == "sign_in":
            response = _render_sign_in_form(error, code)
        else:
            response = Response(msgspec.json.encode(Problem(error)), code, mimetype=JSON)
        response.headers.update(headers or {})
        return response

    @app.errorhandler(HTTPException)
    def handle_http_error(error: HTTPException) -> AnyResponse:
        if error.code == 401 and request.endpoint == "show_page":
            return redirect(url_for("show_sign_in_form"), 303)
        if isinstance(error, CSRFError):
            return make_problem(
                400, "this page is older than your session: load it again (X-CSRF-Token is wrong)"
            )
        if isinstance(error, TooManyRequests):
            limit = limiter.current_limit
            wait_s = max(1, math.ceil(limit.reset_at - time.time())) if limit else 60
            words = f"too many attempts to sign in; try again in {wait_s} s"
            return make_problem(429, words, {"Retry-After": str(wait_s)})
        headers = {"WWW-Authenticate": "Bearer"} if error.code == 401 else {}
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            headers["Allow"] = ", ".join(error.valid_methods)
        return make_problem(error.code or 500, error.description or error.name, headers)

    @app.errorhandler(msgspec.MsgspecError)
    def handle_malformed_message(error: msgspec.MsgspecError) -> AnyResponse:
        return make_problem(400, str(error))

    @app.errorhandler(UnicodeDecodeError)
    def handle_undecodable_text(_error: UnicodeDecodeError) -> AnyResponse:
        return make_problem(400, "the body is not UTF-8")

    @app.errorhandler(NotFound)
    def handle_missing_sample(error: NotFound) -> AnyResponse:
        return make_problem(404, str(error))

    @app.errorhandler(DdnnError)
    def handle_refused_command(error: DdnnError) -> AnyResponse:
        return make_problem(409, str(error))

    @app.errorhandler(LinkError)
    def handle_missing_link(error: LinkError) -> AnyResponse:
        return make_problem(503, str(error))

    @app.errorhandler(Exception)
    def handle_defect(error: Exception) -> AnyResponse:
        log.error("%s %s failed", request.method, request.path, exc_info=error)
        return make_problem(500, "this program failed at this request; see its log")
