"""A plan on disk: plan.json, head, tail and shards, golden vectors. Checked before use."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ddnn.coding.deployment import HEAD, TAIL, Deployment, shard_name
from ddnn.core.blocks import join
from ddnn.core.section import Section
from ddnn.errors import ConfigError, NotDecodableError
from ddnn.protocol.machine import Event, Received
from ddnn.protocol.messages import Assignment, WorkerOffer
from ddnn.runtime.bundle import (
    checked_file,
    close,
    load_sections,
    read_document,
    read_golden,
    write_document,
)

PLAN = "plan.json"
DIRECTORY = "deployment"  # in the bundle, unless another is named
MOST_TOLD = 1000  # nodes of other plans that are named in the log

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan that was read. `id` is the first 8 hex digits of its file's sha256."""

    path: Path
    id: str
    deployment: Deployment

    def load(self, load_section: Callable[[Path], Section], *names: str) -> dict[str, Section]:
        """Some of its sections, each checked against its golden outputs; ConfigError."""
        of = self.deployment
        return load_sections(self.path, of.sections, of.golden, load_section, names)

    def check_code(self) -> None:
        """Raise ConfigError where the code does not decode the shards' golden outputs, so that
        head, shards and tail would not be the undivided section."""
        of, code = self.deployment, self.deployment.make_code()
        golden = read_golden(checked_file(self.path, of.golden))
        try:
            shards = [golden[f"{shard_name(i)}/out/z"] for i in range(code.n)]
            shapes = {of.shard_shape, *(shard.shape[1:] for shard in shards)}
            if len(shapes) > 1 or golden[f"{HEAD}/out/x"].shape[1:] != of.input_shape:
                raise NotDecodableError("its arrays have other shapes than planned")
            _ = golden[f"{TAIL}/out/scores"], golden[f"{TAIL}/out/features"]
            for sample, z in enumerate(golden[f"{TAIL}/in/z"]):
                answers = {i: shard[sample] for i, shard in enumerate(shards)}
                decoded = join(code.decode(answers), of.units)
                if not close(decoded, z):
                    raise NotDecodableError("decoded is another layer output than planned")
        except (NotDecodableError, KeyError, IndexError, ValueError) as error:
            raise ConfigError(
                f"the plan in {self.path}: its code does not fit its shards ({error}); "
                "plan again with `ddnn plan`"
            ) from None


def read_plan(path: Path, bundle: str) -> Plan:
    """The plan in a directory; ConfigError where it was made for another bundle."""
    deployment, plan = read_document(path / PLAN, Deployment, "a plan", "ddnn plan")
    if deployment.bundle != bundle:
        raise ConfigError(
            f"the plan in {path} is for bundle {deployment.bundle}, this is {bundle}; "
            "plan again with `ddnn plan`"
        )
    return Plan(path, plan, deployment)


def write_plan(path: Path, deployment: Deployment) -> str:
    """Write plan.json, after all that it names; its id."""
    return write_document(path / PLAN, deployment)


class OtherPlans:
    """Logs, once for each, the nodes that share by another plan than this one. For Loop.observe."""

    def __init__(self, plan: str) -> None:
        self._plan = plan
        self._told: set[tuple[str, str]] = set()

    def __call__(self, event: Event) -> None:
        match event:
            case Received(_, WorkerOffer(flops_per_s=0)):
                pass  # it lends nothing
            case Received(topic, (WorkerOffer() | Assignment()) as message) if (
                message.plan != self._plan
            ):
                pair = topic.node, message.plan
                if pair not in self._told and len(self._told) < MOST_TOLD:
                    self._told.add(pair)
                    log.warning(
                        "%s has %s, this node plan %s: they share nothing until both have the "
                        "same plan and are started again",
                        topic.node,
                        f"plan {message.plan}" if message.plan else "no plan",
                        self._plan,
                    )
