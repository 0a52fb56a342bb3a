"""This node as a part of trainings: it computes layers that a central node assigns.

TensorFlow is imported when a training begins, not before: a node that only offers itself needs
little memory.
"""

from __future__ import annotations

import importlib.util
import logging
import secrets
import time
from collections.abc import Sequence

from ddnn.errors import LinkError
from ddnn.pipeline.stage import StageFactory
from ddnn.pipeline.worker_node import TrainWorker
from ddnn.protocol.machine import Publish
from ddnn.protocol.topics import Kind, Topic
from ddnn.protocol.train_messages import TrainOffer
from ddnn.runtime.loop import Loop
from ddnn.runtime.profile import measure_profile

log = logging.getLogger(__name__)

MODULES = ("tensorflow", "keras")
LEAVE_S = 10.0  # for the other nodes to take this one's layers when it is stopped
POLL_S = 0.05


def can_train() -> bool:
    """Whether the extra `train` is installed. Imports nothing."""
    try:
        return all(importlib.util.find_spec(module) is not None for module in MODULES)
    except (ImportError, ValueError):
        return False


class Factories:
    """Finds the factories of networks; see ddnn.pipeline.stage.FindFactory.

    own_models, threads: see DescribedNetworks. slow: how many times longer computing takes.
    """

    def __init__(self, own_models: Sequence[str], threads: int | None, slow: float) -> None:
        self._own_models, self._threads, self._slow = own_models, threads, slow
        self._networks: object | None = None

    def find(self, description: str) -> StageFactory:
        """The factory of a network; runs in the thread of calls, which may take long."""
        from ddnn.training.stages.description import DescribedNetworks
        from ddnn.training.stages.slow import SlowStages

        if not isinstance(self._networks, DescribedNetworks):
            self._networks = DescribedNetworks(self._own_models, self._threads)
        factory = self._networks.find(description)
        return factory if self._slow == 1 else SlowStages(factory, self._slow)


def open_trainer(
    site: str, node: str, own_models: Sequence[str], threads: int | None, slow: float
) -> TrainWorker | None:
    """Make the machine of a node that trains; None, with a line in the log, where it cannot."""
    if not can_train():
        log.info(
            "takes no part in trainings: TensorFlow is not installed (pip install 'ddnn[train]')"
        )
        return None
    log.info("offers to take part in trainings (ddnn pipeline train)")
    if slow != 1:
        log.warning("--slow %g: trains so many times slower than it could, for experiments", slow)
    factories = Factories(own_models, threads, slow)
    incarnation = secrets.randbits(31)
    return TrainWorker(site, node, "", factories.find, incarnation, measure_profile(node))


def leave_training(trainer: TrainWorker, loop: Loop) -> None:
    """Tell the central node that this node stops, and wait until the others have its layers."""
    offer = TrainOffer("", trainer.member.incarnation, True)
    if not trainer.is_awaited:
        return
    log.info("leaves the training: waits until others have its layers, %g s at most", LEAVE_S)
    try:
        loop.publish(Publish(Topic(trainer.site, Kind.TRAIN_OFFER, trainer.node), offer))
    except LinkError:
        return
    until_s = time.monotonic() + LEAVE_S
    while trainer.is_awaited and loop.link.connected and time.monotonic() < until_s:
        time.sleep(POLL_S)
