"""The report of `ddnn doctor` on a node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

NETWORK = (
    "name",
    "tcp",
    "mqtt",
    "round trip",
    "node name",
    "access",
    "commands",
    "capabilities",
    "clock",
)


class Report:
    """The rows of `ddnn doctor --json`, and its exit code."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert "Traceback" not in done.stderr, done.stderr
        self.rows = {row["check"]: row for row in json.loads(done.stdout)}
        self.code = done.returncode
        codes = (row["exit_code"] for row in self.rows.values() if row["exit_code"])
        assert self.code == next(codes, 0)

    def outcome(self, check: str) -> str:
        return str(self.rows[check]["outcome"])

    def fails(self, check: str, code: int, *words: str) -> None:
        """Assert that `check` failed first, and that its text contains all the words."""
        failing = [name for name, row in self.rows.items() if row["outcome"] == "failed"]
        assert failing[:1] == [check], self.rows
        assert self.code == code, self.rows
        self.assert_words(check, *words)
        assert self.rows[check]["remedy"]

    def assert_words(self, check: str, *words: str) -> None:
        text = f"{self.rows[check]['message']} {self.rows[check]['remedy']}"
        for word in words:
            assert word in text, text


Doctor = Callable[..., Report]
