"""The troubles of the soak: which come, and that each does what it says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.soak.proxy import ThinLink
from benchmarks.soak.troubles import (
    CLOCK_DIRECTORY,
    CLOCK_VARIABLE,
    LASTS_S,
    TROUBLES,
    draw_troubles,
)


def test_every_trouble_comes_as_often_and_a_seed_repeats_them() -> None:
    def draw(seed: int) -> list[object]:
        random = np.random.default_rng(seed)
        return list(islice(draw_troubles(random, ["cam1", "cam2"], ["edge", "cloud"], 10.0), 50))

    plans = draw(1)
    assert plans == draw(1)
    assert plans != draw(2)
    assert Counter(plan.what for plan in plans) == dict.fromkeys(TROUBLES, 10)  # type: ignore[attr-defined]
    for plan in islice(draw_troubles(np.random.default_rng(0), ["cam1"], ["edge"], 10.0), 100):
        assert LASTS_S[0] <= plan.lasts_s <= LASTS_S[1]
        assert 3.0 <= plan.after_s <= 17.0
        assert plan.node == "cam1" or plan.what != "flood"


def test_the_clock_of_a_process_is_set_from_outside(tmp_path: Path) -> None:
    offset = tmp_path / "clock"
    offset.write_text("0")
    program = (
        "import time\n"
        "for line in iter(input, 'end'):\n"
        "    time.sleep(0.15)\n"
        "    print(time.time(), time.monotonic(), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CLOCK_DIRECTORY), CLOCK_VARIABLE: str(offset)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for step_s in (0.0, -30 * 86400.0, 60 * 86400.0, 0.0):
            offset.write_text(str(step_s))
            process.stdin.write("go\n")
            process.stdin.flush()
            wall_s, monotonic_s = map(float, process.stdout.readline().split())
            assert abs(wall_s - time.time() - step_s) < 60
            assert abs(monotonic_s - time.monotonic()) < 60
        process.stdin.write("end\n")
        process.stdin.flush()


def test_a_thin_link_delays_what_goes_to_the_broker_and_loses_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        received = bytearray()

        def receive() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(4096):
                    received.extend(data)

        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        link = ThinLink(server.getsockname()[1])
        link.bytes_per_s = 40_000.0
        sent = np.random.default_rng(0).bytes(20_000)
        began_s = time.monotonic()
        with socket.create_connection(("127.0.0.1", link.port)) as connection:
            connection.sendall(sent)
        thread.join(60.0)
        assert time.monotonic() - began_s >= 0.45
        assert bytes(received) == sent
        link.close()
