"""`ddnn forget` at a real broker."""

from __future__ import annotations

import json

import pytest

from ddnn.protocol.topics import Kind, Topic, node_filter
from tests.integration.commands import run
from tests.integration.site import Voice

pytestmark = pytest.mark.timed


def list_retained(port: int) -> set[str]:
    late = Voice(port)
    try:
        late.announce("mark", "device")  # comes after what is retained
        late.wait_until(lambda: late.list_payloads(str(Topic("home", Kind.STATUS, "mark"))))
        return {topic for topic, _, retained in late.heard if retained}
    finally:
        late.close()


def test_a_node_that_is_gone_is_forgotten(ddnn: list[str], port: int, voice: Voice) -> None:
    def forget(*nodes: str) -> tuple[int, str]:
        done = run(
            [*ddnn, "forget", *nodes, "--broker-port", str(port), "--for-s", "0.5", "--json"]
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    voice.announce("cam1", "device")
    voice.announce("cam6", "device", "lost")
    entity = "homeassistant/binary_sensor/ddnn-home/node-cam6/config"
    offer = str(Topic("home", Kind.OFFER, "cam6"))
    assigned = str(Topic("home", Kind.ASSIGN, "cam6"))
    for topic in (entity, offer, assigned):
        voice.publish(topic, b"{}", retain=True)
    kept = {str(Topic("home", Kind.STATUS, node)) for node in ("cam1", "mark")}
    assert list_retained(port) >= {entity, offer, assigned}

    code, text = forget("cam6")
    assert code == 0, text
    assert json.loads(text) == {
        "cam6": sorted([assigned, entity, offer, str(Topic("home", Kind.STATUS, "cam6"))])
    }
    assert list_retained(port) - kept == set()
    done = run([*ddnn, "status", "--broker-port", str(port), "--for-s", "0.5", "--json"])
    assert "cam6" not in done.stdout

    code, text = forget("cam1")
    assert (code, "cam1 of site home is online; stop it first" in text) == (2, True)
    code, text = forget("cam6")
    assert (code, "retains nothing of cam6 of site home; it knows cam1, mark" in text) == (2, True)
    assert node_filter("home", "cam1") == "ddnn/v1/home/node/cam1/#"
