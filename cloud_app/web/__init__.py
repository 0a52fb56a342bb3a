"""The page, its JSON API and the server that gives them out."""

from cloud_app.web.app import create_app
from cloud_app.web.server import Server, serve
from cloud_app.web.sign_in import SignIn

__all__ = ["Server", "SignIn", "create_app", "serve"]
