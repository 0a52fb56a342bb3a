"""Work that goes to workers, from a real broker to the page in a real browser."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ddnn.adapters.broker import free_port, wait_until_listening
from ddnn.protocol.topics import Kind
from ddnn.runtime.fleet import Fleet
from tests.browser.chromium import Open, text, wait_for
from tests.integration.site import Voice, mosquitto, start_node
from tests.integration.web_site import TIMEOUT_S
from tests.site_builder import make_offload


@pytest.mark.parametrize("role", ["all", "page"])
def test_the_offload_state_that_an_edge_publishes_is_on_the_page(
    role: str, fleet: Fleet, scenes_bundle: Path, tmp_path: Path, open_page: Open
) -> None:
    """The real program at a real broker: a worker dies, and then the broker itself."""
    http_port = free_port()
    url = f"http://127.0.0.1:{http_port}"
    place = tmp_path / "broker"
    place.mkdir()

    def read() -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", http_port, timeout=TIMEOUT_S)
        with closing(connection):
            connection.request("GET", "/api/v1/offload?site=home")
            return json.loads(connection.getresponse().read())

    with mosquitto(place, "allow_anonymous true") as port:
        start_node(
            fleet,
            "cloud",
            "cloud",
            port,
            scenes_bundle,
            "--serve",
            role,
            "--sign-in",
            "off",
            "--http-port",
            str(http_port),
            "--state",
            str(tmp_path / "state"),
        )
        wait_until_listening(http_port)
        voice = Voice(port)
        voice.announce("edge", "edge")
        for i in range(6):
            voice.announce(f"worker{i + 1}", "worker")

        def publish(*states: str) -> Any:
            voice.say(Kind.OFFLOAD, "edge", make_offload(*states))
            return read()

        def publish_until_shown(selector: str, content: str, *states: str) -> None:
            """Publish the state again and again, as an edge does: the page counts its age."""
            shown = page.locator(selector).filter(has_text=content).first

            def is_shown() -> bool:
                publish(*states)
                return shown.is_visible()

            voice.wait_until(is_shown)

        states = ["live", "lost", "live", "live", "live", "live"]
        voice.wait_until(lambda: publish(*states))
        page = open_page(url)
        enough = "5 of 6 pieces live: enough. Any one worker more"
        publish_until_shown(".offload .enough.good", enough, *states)
        voice.announce("worker2", "worker", "lost")
        wait_for(page, "#event-rows", "worker2 died")
        wait_for(page, "#node-rows .lost", "worker2")
        assert "worker1 piece 0 live" in text(page, "#offload")
        states = ["lost", "lost", "lost", "live", "live", "live"]
        publish_until_shown(".offload .enough.bad", "too few", *states)
        publish_until_shown(".offload .enough.good", "Any 2 workers more")
        wait_for(page, ".offload .enough.wait", "No report for")  # the edge says no more
        publish()
        voice.close()
    page.locator("#offload").wait_for(state="hidden")  # the broker is gone: nothing is known
    wait_for(page, "#problems", "No connection to the broker")
    assert read() == []
