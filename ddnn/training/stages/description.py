"""Descriptions of networks, by which each machine of a pipeline builds its own layers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import msgspec

from ddnn.errors import ConfigError
from ddnn.training.stages.factory import KerasStages
from ddnn.training.stages.families import parse_network
from ddnn.training.stages.optimizers import OptimizerSettings
from ddnn.training.stages.threads import set_threads

Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]


class NetworkDescription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network and how it is trained. model: see `parse_network`; recompute: see KerasStage."""

    model: str
    input_shape: Annotated[tuple[Side, ...], msgspec.Meta(max_length=4)]
    classes: Side
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    optimizer: OptimizerSettings = OptimizerSettings()
    recompute: bool = False

    def to_text(self) -> str:
        """The description as it travels, JSON."""
        return msgspec.json.encode(self).decode()

    def open(self) -> KerasStages:
        """Make the factory of this network's stages."""
        network = parse_network(self.model, self.input_shape, self.classes, self.seed)
        return KerasStages(network, self.optimizer, recompute=self.recompute)


class DescribedNetworks:
    """Factories of the networks that central nodes describe; see ddnn.pipeline.stage.FindFactory.

    own_models: the functions `package.module:function` that may be called here: a message must not
    be able to call any other. threads: see `set_threads`; None: as many as there are cores.
    """

    def __init__(self, own_models: Collection[str] = (), threads: int | None = None) -> None:
        self._own_models = frozenset(own_models)
        self._latest: tuple[str, KerasStages] | None = None
        if threads is not None:
            set_threads(threads)

    def find(self, text: str) -> KerasStages:
        """The factory of a network. Raises ConfigError where it may not, or cannot, be built."""
        if self._latest is None or self._latest[0] != text:
            try:
                description = msgspec.json.decode(text, type=NetworkDescription)
            except msgspec.MsgspecError as error:
                raise ConfigError(f"no description of a network: {error}") from None
            model = description.model
            if ":" in model and model not in self._own_models:
                raise ConfigError(
                    f"network {model} may not be built here; start this node with --train-model "
                    f"{model}, and its module in the current directory"
                )
            self._latest = (text, description.open())
        return self._latest[1]
