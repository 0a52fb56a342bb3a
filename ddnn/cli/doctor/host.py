"""Checks the node's machine: its disk, and the installed versions."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ddnn.cli.doctor.check import Finding
from ddnn.cli.observer import ObserverSettings, make_printable
from ddnn.protocol.messages import Status
from ddnn.runtime.disk import measure_free_space, require_writable
from ddnn.runtime.service import find_ddnn_version

FAILED_BYTES, WARNING_BYTES = 64 << 20, 1 << 30
FAILED_FILES, WARNING_FILES = 100, 10_000


def check_disk(settings: ObserverSettings) -> Finding:
    """Check that the state directory can be written, and has space for answers."""
    directory = Path(settings.state)
    require_writable(directory)
    free_bytes, free_files = measure_free_space(directory)
    message = f"{_find_user()} can write {directory}; {free_bytes / 2**30:.1f} GiB free"
    if free_files is not None:
        message += f", space for {free_files} files"
    files = WARNING_FILES if free_files is None else free_files
    remedy = "make room: answers are kept there while the cloud is away"
    if free_bytes < FAILED_BYTES or files < FAILED_FILES:
        return Finding.failed(message, remedy)
    if free_bytes < WARNING_BYTES or files < WARNING_FILES:
        return Finding.warning(message, remedy)
    return Finding.ok(message)


def check_versions(online: Mapping[str, Status]) -> Finding:
    """Check the versions. `online`: the statuses of the nodes that are online at the site."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    if sys.maxsize <= 2**32:
        problem = f"Python {python} is 32-bit, and LiteRT needs 64-bit"
        return Finding.failed(problem, "install a 64-bit system, such as Raspberry Pi OS 64-bit")
    try:
        litert = version("ai-edge-litert")
    except PackageNotFoundError:
        remedy = "pip install ddnn, in the node's environment"
        return Finding.failed("LiteRT is not installed", remedy)
    message = f"ddnn {find_ddnn_version()}, Python {python}, 64-bit, LiteRT {litert}"
    others = [
        f"{node} has {make_printable(status.version)}"
        for node, status in online.items()
        if status.version not in ("", find_ddnn_version())
    ]
    if others:
        return Finding.warning(
            f"{message}; but {', '.join(others)}", "install one version everywhere"
        )
    return Finding.ok(message)


def _find_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as containers have
        return "this user"
