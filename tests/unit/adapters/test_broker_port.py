"""A port that another program listens on is refused before a broker is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ddnn.adapters import broker
from ddnn.errors import ConfigError
from ddnn.local_site.broker_process import start_broker
from ddnn.runtime.fleet import Fleet


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path / "logs")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert not broker.is_free(port)
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            start_broker(fleet, "mosquitto", port, tmp_path)
    assert not list(fleet.nodes)
    fleet.close()
