"""The `ddnn` command."""

from __future__ import annotations

from importlib import import_module

import click

COMMANDS = (
    "collect",
    "label",
    "train",
    "evaluate",
    "calibrate",
    "plan",
    "rollout",
    "pipeline",
    "demo",
    "doctor",
    "status",
    "forget",
    "secrets",
    "site",
    "health",
)  # in the order of the help; each is an object of the module of its name


class LazyGroup(click.Group):
    """Imports a command when it is asked for: one alone starts in less than half the time."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"ddnn.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ddnn")
def main() -> None:
    """One neural network over cameras, an edge and the cloud.

    \b
    Exit codes: 0 done, 1 failed, 2 wrong option, file, data set or bundle, 3 defect of ddnn in a
    message, 4 invalid message of a peer, 5 not decodable, 6 no plan, 7 a section failed,
    8 unreachable.
    """
