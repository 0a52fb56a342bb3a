"""`ddnn doctor`: every hop between a node and its site, in order, and what to mend."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from ddnn.adapters.command import exit_codes, schema_options
from ddnn.cli.any_node import AnyNode
from ddnn.cli.examination import examine
from ddnn.cli.visit import App, Visit

EPILOG = """\b
Examples:
  ddnn doctor --config /etc/ddnn/device.toml
  ddnn doctor --node cam1 --bundle bundle --source picamera://0 --broker-host edge.lan
  ddnn doctor --broker-host edge.lan --json        the broker alone

\b
Further options are those of the app: `python -m device_app --help`, edge_app, cloud_app.
Ends with 0 where nothing failed, else with the exit code of the first check that did:
1 clock, 2 configuration, bundle, camera, disk, versions, 8 name, tcp, mqtt, round trip.
"""


@click.command(
    epilog=EPILOG,
    params=schema_options(AnyNode),
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.option(
    "--app",
    type=click.Choice(["device", "edge", "cloud"]),
    default=None,
    help="Which app the node runs; by default what the bundle says of it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@click.pass_context
def doctor(context: click.Context, /, app: App | None, as_json: bool, **keys: Any) -> None:
    """Walk every hop between a node and its site, and say what to mend."""
    with exit_codes():
        visit = Visit(keys, context.args, app)
        rows, code = [], 0
        try:
            for name, finding, took_s in examine(visit.checks()):
                code = code or finding.exit_code
                rows.append(
                    {
                        "check": name,
                        "outcome": finding.outcome,
                        "says": finding.says,
                        "remedy": finding.remedy,
                        "exit_code": finding.exit_code,
                        "took_s": round(took_s, 4),
                    }
                )
                if not as_json:
                    click.echo(f"{finding.outcome:8} {name:14} {finding.says}")
                    if finding.remedy:
                        click.echo(f"{'':8} {'':14} remedy: {finding.remedy}")
        finally:
            visit.close()
        if as_json:
            click.echo(json.dumps(rows))
        else:
            click.echo(_last_line([row["outcome"] for row in rows]))
        sys.exit(code)


def _last_line(outcomes: Sequence[Any]) -> str:
    counted = [(outcomes.count(word), word) for word in ("failed", "warning", "skipped")]
    return "; ".join(f"{n} {word}" for n, word in counted if n) or "all is well"
