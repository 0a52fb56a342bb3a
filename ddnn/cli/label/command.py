"""`ddnn label`: the command."""

from __future__ import annotations

import logging
import webbrowser
from pathlib import Path

import click

from ddnn.adapters.command import exit_codes
from ddnn.data.recordings.labelling import LabelBoard
from ddnn.errors import ConfigError

EPILOG = """\b
Rows of the page are samples, columns are cameras. Keys: arrows move, Space selects, 1 to 9 give a
class, N a new one, X drops, B takes out a view that sees nothing, U takes the last change back.
Nothing is deleted: what is taken out moves to DIR/.aside.

\b
Examples:
  ddnn label photos
  ddnn label photos --port 8090 --no-browser
"""


@click.command(epilog=EPILOG)
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--port", default=8090, show_default=True, help="Port on this machine.")
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser.")
def label(directory: Path, port: int, browser: bool) -> None:
    """Give the pictures in DIR their classes, on a page that this machine alone can open."""
    with exit_codes():
        try:
            import waitress  # type: ignore[import-untyped]

            from ddnn.cli.label.app import create_app
        except ImportError as error:
            raise ConfigError(f"{error}; needed: pip install 'ddnn[cloud,camera]'") from None
        app = create_app(LabelBoard(directory))
        try:
            server = waitress.create_server(app, host="127.0.0.1", port=port, threads=4)
        except OSError as error:
            raise ConfigError(f"--port {port}: {error.strerror}; give another --port") from None
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # of many pictures at once
        url = f"http://127.0.0.1:{server.effective_port}/"
        click.echo(f"{directory}: {url} (Ctrl-C ends)")
        if browser:
            webbrowser.open(url)
        try:
            server.run()
        except KeyboardInterrupt:
            server.close()
