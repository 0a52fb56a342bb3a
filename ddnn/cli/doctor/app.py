"""Checks whether the node's app accepts its configuration and opens its camera or database."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO, cast

from ddnn.cli.doctor.check import Finding, split_remedy
from ddnn.cli.doctor.node import App, ExaminedNode
from ddnn.errors import ConfigError, DdnnError
from ddnn.runtime.bundle import read_manifest

APP_CHECK_S = 30.0
OPENED_BY_CHECK = {"device": "camera", "edge": "program", "cloud": "database"}
REMEDIES = {
    "device": "correct --source, or check the camera",
    "edge": "python -m {app}_app --help lists the keys",
    "cloud": "correct --database, or check the database",
}


class AppChecks:
    """Two checks that share one process of the node's app, started with --check.

    The first check starts it; it continues in the background until the second one reads its result.
    """

    def __init__(self, node: ExaminedNode) -> None:
        self._node = node
        self._process: AppProcess | None = None
        # A worker has no camera: its app is described as an edge's.
        self._described_as: App = "edge" if node.is_worker else node.app or "edge"

    @property
    def name(self) -> str:
        """Name of the second check: camera, program or database."""
        return OPENED_BY_CHECK[self._described_as]

    def check_configuration(self) -> Finding:
        """Check the common keys here; the app, started with --check, checks its own."""
        node = self._node
        try:
            settings = node.settings
        except ConfigError as error:
            problem, remedy = split_remedy(str(error))
            return Finding.failed(
                problem, remedy or "ddnn doctor --help lists the keys of every node"
            )
        if node.app is None and node.flags:
            if settings.bundle:
                read_manifest(Path(settings.bundle))  # raises the reason why no app is known
            return Finding.failed(
                f"{' '.join(node.flags)}: not a key of every node, and no app is known",
                "correct --node, add --app device, edge or cloud, or correct the option",
            )
        summary = f"node {settings.node}, site {settings.site}, broker {settings.broker}"
        if node.app is None:
            return Finding.ok(
                f"{summary}; no app is known for it, so only what all nodes have in common is "
                "examined"
            )
        self._process = AppProcess(node.app, node.make_check_command())
        refusal = self._process.read_refusal()
        if refusal:
            return Finding.failed(refusal, f"python -m {node.app}_app --help lists the keys")
        return Finding.ok(f"{node.app}_app accepts it: {summary}")

    def check_program(self, online: Collection[str]) -> Finding:
        """Check that the app could start. `online`: the nodes that are online at the site."""
        if self._process is None:
            return Finding.skipped("no app is named", "name it with --app")
        exit_code, message = self._process.read_result()
        if exit_code == 0:
            return Finding.ok(message)
        problem, remedy = split_remedy(message)
        remedy = remedy or REMEDIES[self._described_as].format(app=self._node.app)
        node = self._node.settings.node
        if self._described_as == "device" and node in online:
            return Finding.warning(
                f"{problem}; but {node} is online and may hold its camera",
                "stop the node to examine its camera",
            )
        return Finding("failed", problem, remedy, exit_code)

    def close(self) -> None:
        if self._process is not None:
            self._process.close()


class AppProcess:
    """A process that runs the node's app with --check."""

    def __init__(self, app: App, command: Sequence[str]) -> None:
        self._app = app
        self._deadline_s = time.monotonic() + APP_CHECK_S
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by `close`
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._errors, stdin=subprocess.DEVNULL
        )

    def read_refusal(self) -> str:
        """The reason why the app refuses its keys; empty where it accepts them, which it reports
        on standard output before it opens anything."""
        out = cast(IO[bytes], self._process.stdout)
        return "" if out.readline() else self.read_result()[1]

    def read_result(self) -> tuple[int, str]:
        """The exit code of the app, and what it reports."""
        left_s = max(0.1, self._deadline_s - time.monotonic())
        try:
            out, _ = self._process.communicate(timeout=left_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            problem = f"{self._app}_app --check did not end within {APP_CHECK_S:.0f} s"
            return DdnnError.exit_code, f"{problem}; it hangs: run it by hand"
        if self._process.returncode == 0:
            *details, last = out.decode(errors="replace").strip().split("\n")
            return 0, ", ".join(details) or last
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().split("\n")
        message = next((line for line in lines if line.lower().startswith("error: ")), lines[-1])
        if "ModuleNotFoundError" in message:
            extra = "cloud" if self._app == "cloud" else "camera"
            message += f"; pip install 'ddnn[{extra}]'"
        return max(1, self._process.returncode), message.partition("rror: ")[2] or message

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()
