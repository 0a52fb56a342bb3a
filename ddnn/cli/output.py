"""Prints the reports of commands on standard output."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click


def print_report(report: Mapping[str, Any], as_json: bool) -> None:
    """Print one line per figure, or one line with one JSON object."""
    if as_json:
        click.echo(json.dumps(report))
        return
    for key, value in report.items():
        click.echo(f"{key:28} {value}")
