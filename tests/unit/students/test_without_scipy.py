"""A node that runs students, and does not plan them, needs no scipy."""

from __future__ import annotations

import subprocess
import sys

BLOCKED = "import sys; sys.modules['scipy'] = sys.modules['networkx'] = None; "


def run(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_room_is_found_without_scipy() -> None:
    done = run(
        "from ddnn.rooms import find_room; print(find_room('students').make_combiner.__name__)"
    )
    assert (done.stdout.strip(), done.stderr) == ("StudentCombiner", "")


def test_planning_without_scipy_names_it() -> None:
    done = run("from ddnn.students import plan")
    assert "scipy" in done.stderr
