"""Commands that are run to their end, and what they print."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.harness.processes import read_to_end

COMMAND_S = 150  # the longest that a command may take


def run(command: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command with these variables; one that takes too long can end its own processes."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    ) as process:
        output, errors = read_to_end(process, COMMAND_S)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def parse_one_object(text: str) -> dict[str, Any]:
    """Standard output is one line with one JSON object and nothing else; NaN is no JSON."""
    assert text.count("\n") == 1, text

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} in JSON")

    value = json.loads(text, parse_constant=refuse)
    assert isinstance(value, dict)
    return value


def assert_one_line_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0], lines
