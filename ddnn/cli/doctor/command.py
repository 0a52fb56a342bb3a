"""The command `ddnn doctor`: runs the checks in order and prints what they found."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from typing import Any

import click

from ddnn.adapters.command import exit_codes, schema_options
from ddnn.cli.doctor.access import ECHO_S, TRAFFIC_S, check_access
from ddnn.cli.doctor.app import APP_CHECK_S, AppChecks
from ddnn.cli.doctor.broker import (
    MQTT_S,
    TCP_S,
    BrokerConnection,
    check_mqtt,
    check_name,
    check_node_name,
    check_round_trip,
    check_tcp,
)
from ddnn.cli.doctor.bundle import check_bundle
from ddnn.cli.doctor.capabilities import DELIVERY_S, check_capabilities
from ddnn.cli.doctor.check import Check, Finding, run_checks
from ddnn.cli.doctor.clock import check_clock
from ddnn.cli.doctor.host import check_disk, check_versions
from ddnn.cli.doctor.node import App, ExaminedNode
from ddnn.cli.doctor.security import COMMANDS_S, check_commands, check_security
from ddnn.cli.observer import ObserverSettings
from ddnn.errors import LinkError

EPILOG = """\b
Examples:
  ddnn doctor --config /etc/ddnn/device.toml
  ddnn doctor --node cam1 --bundle bundle --source picamera://0 --broker-host edge.lan
  ddnn doctor --broker-host edge.lan --json        the broker alone

\b
Further options are those of the app: `python -m device_app --help`, edge_app, cloud_app.
Ends with 0 where no check failed, else with the exit code of the first one that failed:
1 clock, 2 configuration, security, node name, bundle, camera, disk, versions, 8 name, tcp, mqtt,
round trip, access, capabilities.
"""


@click.command(
    epilog=EPILOG,
    params=schema_options(ObserverSettings),
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.option(
    "--app",
    type=click.Choice(["device", "edge", "cloud"]),
    default=None,
    help="Which app the node runs; by default the one that the bundle names.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@click.pass_context
def doctor(context: click.Context, /, app: App | None, as_json: bool, **keys: Any) -> None:
    """Check every hop between a node and its site, and name the remedies."""
    with exit_codes(), contextlib.ExitStack() as stack:
        node = ExaminedNode(keys, context.args, app)
        app_checks = stack.enter_context(contextlib.closing(AppChecks(node)))
        connection = stack.enter_context(contextlib.closing(BrokerConnection()))
        rows: list[dict[str, Any]] = []
        for name, finding, took_s in run_checks(list_checks(node, app_checks, connection)):
            rows.append(_make_row(name, finding, took_s))
            if not as_json:
                _print_finding(name, finding)
        click.echo(json.dumps(rows) if as_json else _summarize(rows))
        sys.exit(next((row["exit_code"] for row in rows if row["exit_code"]), 0))


def list_checks(
    node: ExaminedNode, app_checks: AppChecks, connection: BrokerConnection
) -> list[Check]:
    """The checks, in the order in which a node needs what they examine."""
    common, link = ("configuration",), LinkError.exit_code
    return [
        Check("configuration", app_checks.check_configuration, deadline_s=20.0),
        Check("security", lambda: check_security(node.settings), common),
        Check("name", lambda: check_name(node.settings), common, 5.0, link),
        Check("tcp", lambda: check_tcp(node.settings, connection), ("name",), 2 * TCP_S, link),
        Check("mqtt", lambda: check_mqtt(node.settings, connection), ("tcp",), 3 * MQTT_S, link),
        Check(
            "round trip",
            lambda: check_round_trip(node.settings, connection),
            ("mqtt",),
            exit_code=link,
        ),
        Check("node name", lambda: check_node_name(node.settings, connection), ("round trip",)),
        Check(
            "access",
            lambda: check_access(node, connection),
            ("round trip",),
            2 * ECHO_S + TRAFFIC_S,
            link,
        ),
        Check(
            "commands",
            lambda: check_commands(node.settings, connection),
            ("round trip",),
            COMMANDS_S + 1,
        ),
        Check(
            "capabilities",
            lambda: check_capabilities(node, connection),
            ("round trip",),
            3 * DELIVERY_S,
            link,
        ),
        Check("clock", lambda: check_clock(node.settings, connection), ("round trip",)),
        Check("bundle", lambda: check_bundle(node, connection.online), common, 30.0),
        Check("disk", lambda: check_disk(node.settings), common),
        Check(
            app_checks.name,
            lambda: app_checks.check_program(connection.online),
            ("configuration", "bundle", "disk"),
            APP_CHECK_S + 5,
        ),
        Check("versions", lambda: check_versions(connection.online)),
    ]


def _make_row(name: str, finding: Finding, took_s: float) -> dict[str, Any]:
    return {
        "check": name,
        "outcome": finding.outcome,
        "message": finding.message,
        "remedy": finding.remedy,
        "exit_code": finding.exit_code,
        "took_s": round(took_s, 4),
    }


def _print_finding(name: str, finding: Finding) -> None:
    click.echo(f"{finding.outcome:8} {name:14} {finding.message}")
    if finding.remedy:
        click.echo(f"{'':8} {'':14} remedy: {finding.remedy}")


def _summarize(rows: list[dict[str, Any]]) -> str:
    counts = Counter(row["outcome"] for row in rows)
    outcomes = ("failed", "warning", "skipped")
    return "; ".join(f"{counts[o]} {o}" for o in outcomes if counts[o]) or "all is well"
