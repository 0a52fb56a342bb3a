"""A stage of a pipeline in Keras: forward, backward and update of consecutive layers.

**Weight versions.** A forward keeps what its backward needs: the intermediate tensors, among them
the weights that it used. TensorFlow's tensors do not change once they are made (an update of a
variable writes to a new buffer while the old one is in use), so a backward computes with the
weights of its forward, however often they were updated meanwhile: PipeDream's weight stashing
(Narayanan et al., 2019). A version of a weight takes memory only while something needs it.

**Memory or time.** With `recompute` a forward keeps only its inputs, outputs and weights, and the
backward computes the forward again. The intermediate tensors are many times larger than that, but a
backward costs about two forwards, so that a batch would take up to a third more time. Computing is
what is scarce on the devices meant here; so it is off, and for those whose memory does not suffice.
Both give the same gradients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ddnn.core.section import Array
from ddnn.errors import LocalProtocolError
from ddnn.pipeline.stage import LastResult, LayerState
from ddnn.training.stages.layer import PipelineLayer
from ddnn.training.stages.optimizers import OptimizerSettings, compute_learning_rate

Weights = list[list[Any]]  # by layer, of the layer


class _InFlight(NamedTuple):
    """A batch whose backward is to come. tape: None where its forward is computed again."""

    inputs: Any
    outputs: Any
    weights: Weights
    tape: Any


class KerasStage:
    """The layers [start, stop) of a network; see ddnn.pipeline.stage.Stage.

    Batches have a fixed shape: each other shape is compiled again.

    layers: consecutive, each with its state. version, keep: see StageFactory.build. recompute: see
    above.
    """

    def __init__(
        self,
        layers: Sequence[PipelineLayer],
        optimizer: OptimizerSettings,
        *,
        version: int = 0,
        keep: int = 1,
        recompute: bool = False,
    ) -> None:
        self.start, self.stop = layers[0].number, layers[-1].number + 1
        self._layers, self._optimizer = list(layers), optimizer
        self._recompute = recompute
        self._loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._in_flight: dict[int, _InFlight] = {}
        self._gradients: list[Any] | None = None
        self._version = version
        self._versions: deque[Weights] = deque([self._read_weights()], maxlen=keep)
        # Functions of the instance: their graphs end with it.
        self._run = tf.function(self._compute, autograph=False)
        self._rerun = tf.function(self._compute_again, autograph=False)
        self._run_last = tf.function(self._compute_last, autograph=False)
        self._add = tf.function(_add_each, autograph=False)
        self._update = tf.function(self._apply_each, autograph=False)

    # ------------------------------------------------------------------ batches

    def forward(self, batch: int, inputs: Array, version: int | None = None) -> Array:
        """The outputs of a batch. One in flight already has the outputs that it had."""
        if (held := self._in_flight.get(batch)) is None:
            weights, x, tape = self._find_version(version), tf.constant(inputs), None
            if self._recompute:
                outputs = self._run(weights, _number(batch), x)
            else:
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    self._watch(tape, weights, x)
                    outputs = self._run(weights, _number(batch), x)
            self._in_flight[batch] = held = _InFlight(x, outputs, weights, tape)
        return held.outputs.numpy()  # type: ignore[no-any-return]

    def backward(self, batch: int, gradient: Array) -> Array | None:
        """Accumulate a batch's gradients; the gradient of the inputs, None of the first stage."""
        if (held := self._in_flight.pop(batch, None)) is None:
            raise LocalProtocolError(f"backward of batch {batch}, which had no forward here")
        x, outputs, weights, tape = held
        upstream = tf.constant(gradient)
        if tape is None:
            return self._accumulate(self._rerun(weights, _number(batch), x, upstream))
        return self._accumulate(self._differentiate(tape, outputs, weights, x, upstream))

    def train_last(
        self,
        batch: int,
        inputs: Array,
        labels: Array,
        weight: float = 1.0,
        version: int | None = None,
    ) -> LastResult:
        """Forward, loss and backward of the last stage. labels: int32 [batch].

        The loss is the mean cross entropy.
        """
        found, loss, correct = self._run_last(
            self._find_version(version),
            _number(batch),
            tf.constant(inputs),
            tf.constant(labels),
            tf.constant(weight, tf.float32),
        )
        return LastResult(self._accumulate(found), float(loss), int(correct), len(labels))

    def apply(self) -> None:
        """Update the weights with the accumulated gradients."""
        if self._gradients is None:
            raise LocalProtocolError("apply without a backward since the last one")
        rate = compute_learning_rate(self._optimizer, self._version)
        self._update(self._gradients, tf.constant(rate, tf.float32))
        self._gradients = None
        self._version += 1
        self._versions.append(self._read_weights())

    def aggregate(self, versions: int) -> None:
        """Replace the weights by the mean of their latest versions (FTPipeHD).

        There are fewer at the start: the mean is then of those that there are.
        """
        keep = self._versions.maxlen or 0
        if not 1 <= versions <= keep:
            raise LocalProtocolError(
                f"aggregation of {versions} versions; this stage keeps {keep}: build it to "
                "keep more"
            )
        latest = list(self._versions)[-versions:]
        for number, layer in enumerate(self._layers):
            for index, variable in enumerate(layer.weights):
                values = [version[number][index] for version in latest]
                variable.assign(tf.add_n(values) / float(len(values)))
        self._versions[-1] = self._read_weights()

    # -------------------------------------------------------------------- state

    def read_layer(self, layer: int) -> LayerState:
        """A copy of a layer's state."""
        if not self.start <= layer < self.stop:
            raise LocalProtocolError(f"layer {layer} of a stage of {self.start} to {self.stop - 1}")
        return self._layers[layer - self.start].read_state()

    def discard(self) -> None:
        """Forget all batches in flight and the gradients that were not applied."""
        self._in_flight.clear()
        self._gradients = None

    # ----------------------------------------------------------------- tensors

    def _read_weights(self) -> Weights:
        return [[tf.convert_to_tensor(v) for v in layer.weights] for layer in self._layers]

    def _find_version(self, version: int | None) -> Weights:
        if version is None:
            return self._versions[-1]
        oldest = self._version - len(self._versions) + 1
        if not oldest <= version <= self._version:
            raise LocalProtocolError(
                f"weight version {version}; this stage has {oldest} to {self._version}: build "
                "it to keep more"
            )
        return self._versions[version - oldest]

    def _compute(self, weights: Weights, batch: Any, x: Any) -> Any:
        """The outputs; buffers are updated."""
        outputs, updates = self._compose(weights, batch, x)
        for variable, value in updates:
            variable.assign(value)
        return outputs

    def _compute_again(self, weights: Weights, batch: Any, x: Any, upstream: Any) -> Any:
        """The gradients of a batch from its inputs; buffers, updated once, stay as they are."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            self._watch(tape, weights, x)
            outputs = self._compose(weights, batch, x)[0]
        return self._differentiate(tape, outputs, weights, x, upstream)

    def _compute_last(
        self, weights: Weights, batch: Any, x: Any, labels: Any, weight: Any
    ) -> tuple[Any, Any, Any]:
        """Gradients, mean loss and number of correct answers."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            self._watch(tape, weights, x)
            scores = self._compute(weights, batch, x)
            loss = self._loss(labels, scores)
        found = self._differentiate(tape, loss, weights, x, weight)
        answers = tf.argmax(scores, -1, output_type=labels.dtype)
        return found, loss, tf.reduce_sum(tf.cast(answers == labels, tf.int32))

    def _compose(self, weights: Weights, batch: Any, x: Any) -> tuple[Any, list[Any]]:
        updates = []
        x = tf.cast(x, tf.float32)  # images are integers
        for layer, own in zip(self._layers, weights, strict=True):
            x, changed = layer.run(own, batch, x)
            updates += changed
        return x, updates

    def _watch(self, tape: Any, weights: Weights, x: Any) -> None:
        tape.watch(weights)
        if self.start:
            tape.watch(x)

    def _differentiate(
        self, tape: Any, outputs: Any, weights: Weights, x: Any, upstream: Any
    ) -> tuple[list[Any], Any]:
        """Gradients of all weights, as one list, and of the inputs (None of a first stage)."""
        sources = [weight for own in weights for weight in own]
        found = tape.gradient(
            outputs,
            [*sources, x] if self.start else sources,
            output_gradients=upstream,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return found[: len(sources)], found[-1] if self.start else None

    def _accumulate(self, found: tuple[list[Any], Any]) -> Array | None:
        gradients, of_inputs = found
        before = self._gradients
        self._gradients = gradients if before is None else self._add(before, gradients)
        return None if of_inputs is None else of_inputs.numpy()

    def _apply_each(self, gradients: list[Any], learning_rate: Any) -> None:
        rest = iter(gradients)
        for layer in self._layers:
            layer.apply([next(rest) for _ in layer.weights], learning_rate)


def _add_each(a: list[Any], b: list[Any]) -> list[Any]:
    return [x + y for x, y in zip(a, b, strict=True)]


def _number(batch: int) -> Any:
    return tf.constant(batch, tf.int64)
