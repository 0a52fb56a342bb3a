"""The `ddnn` command."""

from __future__ import annotations

import click

from ddnn.cli.demo import demo
from ddnn.cli.doctor import doctor
from ddnn.cli.evaluate import evaluate
from ddnn.cli.health import health
from ddnn.cli.plan import plan
from ddnn.cli.secrets import secrets
from ddnn.cli.status import status
from ddnn.cli.train import train


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ddnn")
def main() -> None:
    """One neural network over cameras, an edge and the cloud.

    \b
    Exit codes: 0 done, 1 failed, 2 wrong option, file, data set or bundle, 3 defect of ddnn in a
    message, 4 invalid message of a peer, 5 not decodable, 6 no plan, 7 a section failed,
    8 unreachable.
    """


main.add_command(train)
main.add_command(evaluate)
main.add_command(plan)
main.add_command(demo)
main.add_command(doctor)
main.add_command(status)
main.add_command(secrets)
main.add_command(health)
