"""`ddnn pipeline`: trains one network over several devices."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from ddnn.adapters.command import app_command, exit_codes, read_config, schema_options
from ddnn.cli.observer import (
    SITE_KEYS,
    UNNAMED_NODE,
    ObserverSettings,
    read_observer_settings,
)
from ddnn.cli.output import print_report
from ddnn.cli.pipeline_options import (
    PipelineDemoOptions,
    PipelineTrainOptions,
    choose_global_every,
)
from ddnn.errors import ConfigError
from ddnn.local_site.interrupts import end_on_signals
from ddnn.local_site.pipeline_demo import run_demo
from ddnn.local_site.pipeline_training import check_request, train_pipeline
from ddnn.runtime.settings import NodeSettings

PREFIX = "DDNN_PIPELINE_"
NODE_KEYS = (*SITE_KEYS, "insecure")
CENTRAL = "central"
EPILOG = """\b
Examples, each on the central node, which holds the data:
  ddnn pipeline train --model mobilenet-0.5 --data cifar10 --workers announced --out bundle
  ddnn pipeline train --model my_nets:build --data directory:./photos --workers 2 --out bundle \\
      --site-file central.site --restore consistent --global-every 100
  ddnn pipeline train --model mlp-256-256 --workers 0 --out bundle
\b
On the other machines, where the extra train is installed:
  python -m device_app --lend on --site-file worker1.site
\b
Then:
  ddnn demo --bundle bundle --data cifar10        the data that it was trained on
"""
DEMO_EPILOG = """\b
Examples:
  ddnn pipeline demo
  ddnn pipeline demo --devices 1,1,10 --kill worker1@50
  ddnn pipeline demo --devices 1,2,2 --stop worker1@40 --restart worker1@80 --json
"""


@click.group()
def pipeline() -> None:
    """Train one network over several devices, which may be unequal and may be lost."""


@click.command(
    "train",
    epilog=EPILOG,
    params=[
        *(
            option
            for option in schema_options(ObserverSettings)
            if option.name in NODE_KEYS and option.name != "config"
        ),
        *schema_options(PipelineTrainOptions, PREFIX),
    ],
)
def train(config: str | None, **flags: Any) -> None:
    """Train a network with the devices of a site, and write it as a bundle.

    This process is the central node: it holds the data, computes the first layers, and decides who
    computes the others. Killed and started again, it goes on from its checkpoint.
    """
    log_warnings()
    with exit_codes(), end_on_signals("interrupted"):
        broker_flags = {key: flags.pop(key) for key in NODE_KEYS if key in flags}
        options = read_config(
            PipelineTrainOptions,
            flags,
            os.environ,
            config,
            others=ObserverSettings.__struct_fields__,
            prefix=PREFIX,
        )
        node = read_node(broker_flags, config, options.node)
        request = options.make_request()
        check_request(request)
        print_report(train_pipeline(request, node), options.json)


def read_node(flags: Mapping[str, Any], config: str | None, name: str) -> NodeSettings:
    """The settings of the central node. Raises ConfigError.

    name: --node; empty: that of the site file, else CENTRAL.
    """
    keys = msgspec.structs.asdict(read_observer_settings(flags, config))
    if keys["site_file"] and name not in ("", keys["node"]):
        raise ConfigError(
            f"--node {name} with a site file of {keys['node']}; leave out --node, or give the file "
            f"of {name}"
        )
    if not keys["site_file"] and (name or keys["node"] == UNNAMED_NODE):
        keys["node"] = name or CENTRAL
    node = NodeSettings(**keys)
    if node.site_file:
        node.check_files()  # the numbers of signed commands are kept in its state directory
    return node


def log_warnings() -> None:
    """Print what the central node's machine logs like this command's notes."""
    logging.basicConfig(level=logging.WARNING, format="ddnn: %(message)s")


def show_demo(options: PipelineDemoOptions) -> None:
    log_warnings()
    keys = msgspec.structs.asdict(options)
    as_json = keys.pop("json")
    keys.update(devices=options.factors, global_every=choose_global_every(options))
    with end_on_signals("interrupted"):
        report = run_demo(**keys)
    print_report(report, as_json)


pipeline.add_command(train)
pipeline.add_command(
    app_command(
        PipelineDemoOptions,
        show_demo,
        name="demo",
        description="Train over emulated devices of this machine, and lose some of them.",
        epilog=DEMO_EPILOG,
        prefix="DDNN_PIPELINE_DEMO_",
    )
)
