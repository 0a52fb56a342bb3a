"""Lets samples pass through a site, and kills and starts its nodes meanwhile."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ddnn.errors import ConfigError
from ddnn.local_site.broker_process import BROKER
from ddnn.local_site.progress import print_note
from ddnn.local_site.report import make_report
from ddnn.local_site.site import Site

GRACE_S = 6.0  # after the last deadline: late deliveries of nodes that were away
RETURN_S = 20.0  # so long the report waits for nodes that were started again
POLL_S = 0.05


@dataclass(frozen=True, order=True, slots=True)
class Action:
    """What happens to a node after so many samples."""

    after: int
    what: Literal["kill", "restart"]
    node: str


def parse_action(what: Literal["kill", "restart"], text: str, nodes: Iterable[str]) -> Action:
    """The action that "NODE@N" stands for; ConfigError where there is no such node."""
    node, at, count = text.partition("@")
    if not at or not count.isdecimal():
        raise ConfigError(f"--{what} {text!r}: expected NODE@N, such as cam3@100")
    if node not in nodes:
        raise ConfigError(f"--{what} {node}: no such node; there are {', '.join(nodes)}")
    return Action(int(count), what, node)


def run_samples(
    site: Site,
    samples: int | None,
    actions: Iterable[Action] = (),
    refresh: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The report on the next `samples`, or on all until Ctrl-C.

    refresh: called about twenty times a second meanwhile
    """
    first = site.choose_first_sample()
    count = 0
    left = sorted(actions)
    latest: dict[str, str] = {}  # by node, the last thing that was done to it
    try:
        while samples is None or count < samples:
            refresh()
            time.sleep(min(POLL_S, 1 / site.rate_hz))
            count = max(0, site.tick() - first)
            while left and count >= left[0].after:
                action = left.pop(0)
                _act(site, action)
                latest[action.node] = action.what
    except KeyboardInterrupt:
        samples = count
    expected = range(first, first + (samples or 0))
    _wait_for_answers(site, expected)
    _wait_for_return(site, {node for node, what in latest.items() if what == "restart"})
    stored = site.list_stored(expected)
    delivered = {record.answer.sample for record in stored} | set(site.watcher.answers)
    for record in stored:
        site.watcher.add(record.answer, record.first_answered_at_s)
    for answer in site.list_spooled():
        site.watcher.add(answer)
    return make_report(site, expected, delivered)


def _act(site: Site, action: Action) -> None:
    print_note(f"{action.what} {action.node} after {action.after} samples")
    if action.what == "kill":
        site.fleet.send_signal(action.node, signal.SIGKILL)
    elif not site.fleet.is_alive(action.node):
        site.fleet.start(action.node)


def _wait_for_answers(site: Site, samples: range) -> None:
    """Wait until every sample has an answer, at most for the deadline and a grace."""
    deadline_s = time.monotonic() + site.deadline_s
    give_up_s = deadline_s + GRACE_S
    while time.monotonic() < give_up_s:
        over = time.monotonic() > deadline_s
        if over and not site.fleet.is_alive(BROKER):
            return  # nothing more can be delivered: the devices have answered for themselves
        with site.watcher.lock:
            answered = all(sample in site.watcher.answers for sample in samples)
        if over and answered:
            return
        time.sleep(POLL_S)


def _wait_for_return(site: Site, nodes: set[str]) -> None:
    """Wait until these nodes take part again, so that the report counts them."""
    give_up_s = time.monotonic() + RETURN_S
    while away := {node for node in nodes if not site.watcher.takes_part(node)}:
        if time.monotonic() > give_up_s or not site.fleet.is_alive(BROKER):
            print_note(f"not back by the end: {', '.join(sorted(away))}")
            return
        time.sleep(POLL_S)
