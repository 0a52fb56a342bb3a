"""`ddnn forget`: removes what the broker retains of nodes that are gone for good."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from ddnn.adapters.command import exit_codes
from ddnn.cli.observer import list_site_options, read_observer_settings
from ddnn.cli.site_observer import SiteObserver, observe_site
from ddnn.core.ids import require_id
from ddnn.errors import ConfigError, LinkError
from ddnn.protocol.home_assistant import find_entities, require_prefix
from ddnn.protocol.topics import EVERYWHERE, Kind, node_filter, topic_filter

CONFIRM_S = 5.0
EPILOG = """\b
Examples:
  ddnn forget cam6 --broker-host edge.lan
  ddnn forget worker3 worker4 --site shop

\b
Run it at the site's own broker. A node that is online is not forgotten: stop it first. One that is
started again is there again.
"""


@click.command(epilog=EPILOG, params=list_site_options())
@click.argument("nodes", nargs=-1, required=True)
@click.option(
    "--home-assistant",
    "prefix",
    default="homeassistant",
    show_default=True,
    help="Discovery prefix of Home Assistant, which forgets the nodes, too.",
)
@click.option("--for-s", default=2.0, show_default=True, help="Listen so long before.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def forget(nodes: tuple[str, ...], prefix: str, for_s: float, as_json: bool, **keys: Any) -> None:
    """Forget nodes that are gone for good: page, status, metrics and alerts drop them."""
    with exit_codes():
        for node in nodes:
            require_id(node, "node")
        require_prefix(prefix)
        settings = read_observer_settings(keys, keys.pop("config"))
        if settings.site == EVERYWHERE:
            raise ConfigError(f"--site {EVERYWHERE}; name the site of the nodes")
        with observe_site(settings) as observer:
            topics = {
                node: [
                    node_filter(settings.site, node),
                    topic_filter(Kind.ASSIGN, settings.site, node),
                    *find_entities(prefix, settings.site, node),
                ]
                for node in nodes
            }
            observer.collect_retained([text for texts in topics.values() for text in texts])
            observer.listen_for(for_s)
            removed = {node: _forget(observer, node, prefix) for node in nodes}
    if as_json:
        click.echo(json.dumps(removed))
        return
    for node, gone in removed.items():
        click.echo(f"{node} is forgotten: {', '.join(gone)}")


def _forget(observer: SiteObserver, node: str, prefix: str) -> list[str]:
    """Remove the retained messages of a node; return their topics."""
    site = observer.settings.site
    known = observer.nodes.get((site, node))
    if known is not None and observer.judge_presence(known) == "online":
        raise ConfigError(f"{node} of site {site} is online; stop it first")
    begins = (node_filter(site, node).removesuffix("#"), *find_entities(prefix, site, node))
    assigned = topic_filter(Kind.ASSIGN, site, node)
    topics = sorted(t for t in observer.retained if t.startswith(begins) or t == assigned)
    if not topics:
        names = ", ".join(sorted(n for of, n in observer.nodes if of == site)) or "no node"
        raise ConfigError(f"the broker retains nothing of {node} of site {site}; it knows {names}")
    for topic in topics:
        observer.clear(topic)
    until_s = time.monotonic() + CONFIRM_S
    while not observer.retained.isdisjoint(topics) and time.monotonic() < until_s:
        observer.wait(0.1)
    removed = [topic for topic in topics if topic not in observer.retained]
    if not removed:
        raise LinkError(
            f"{topics[0]} is still retained; this user may not write there: on a site with rights "
            f"per node use {node}'s own --site-file"
        )
    return removed
