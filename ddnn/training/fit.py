"""Joint training of all exits (DDNN III-C; notes A4), with devices dropped at random.

Exits may learn from a network too (distillation): from the softened answers of the deepest exit,
as they are at the same step, or from those of a teacher, an undistributed network of the same
layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, Protocol

import keras
import msgspec
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ddnn.errors import ConfigError
from ddnn.training import augment
from ddnn.training.augment import Augmentation
from ddnn.training.keeper import Keeper
from ddnn.training.models import Network
from ddnn.training.prune import Pruner, Pruning

Distillation = Literal["off", "deepest", "teacher"]
Images = NDArray[np.uint8]
Labels = NDArray[np.int32]


class SplitLike(Protocol):
    """See ddnn.data.Split; training and data do not import each other."""

    @property
    def images(self) -> Images: ...
    @property
    def labels(self) -> Labels: ...
    @property
    def view_labels(self) -> Labels: ...


class Batches(Protocol):
    """A source of training batches.

    Returns images uint8 [batch, views, h, w, 3], labels int32 [batch], and view labels int32
    [batch, views] with -1 where a camera does not see the object.
    """

    def __call__(
        self, generator: np.random.Generator, batch: int
    ) -> tuple[Images, Labels, Labels]: ...


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a training.

    The loss is the weighted sum over all exits of their cross entropies, single devices included
    (absent views ignored). The paper weights all exits 1 and uses plain Adam for 100 epochs; here
    AdamW with a cosine schedule and averaged weights needs fewer steps.
    """

    steps: int = 600
    batch: int = 32
    learning_rate: float = 3e-3
    warm_up_steps: int = 30
    weight_decay: float = 0.05
    average: float = 0.98  # momentum of the averaged weights; 0: the last ones
    label_smoothing: float = 0.1
    weights: dict[str, float] = msgspec.field(  # of the exits' losses
        default_factory=lambda: {"device": 0.5, "local": 1.0, "edge": 1.0, "cloud": 1.0}
    )
    distillation: Distillation = "off"
    distillation_weight: float = 1.0  # of the divergence from the softened answers, at each exit
    temperature: float = 2.0  # by which scores are divided for it
    drop_share: float = 0.35  # of samples that lose members
    drop_most: float = 0.67  # of the members, at most
    augmentation: Augmentation = Augmentation()
    pruning: Pruning | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"{self.steps} training steps: expected at least 1")


def draw_member_mask(
    generator: np.random.Generator, batch: int, members: int, settings: Fit
) -> NDArray[np.float32]:
    """Draw device dropout: a share of the samples loses one to `drop_most` of the members.

    Returns float32 [batch, members] of 0 and 1, with at least one 1 in each row.
    """
    mask = np.ones((batch, members), np.float32)
    most = min(members - 1, int(settings.drop_most * members))
    if most:
        hit = generator.random((batch, 1)) < settings.drop_share
        count = generator.integers(1, most + 1, (batch, 1))
        rank = np.argsort(np.argsort(generator.random((batch, members)), 1), 1)
        mask[hit & (rank < count)] = 0
    return mask


def fit(
    network: Network,
    batches: Batches,
    settings: Fit,
    progress: Callable[[int, int, float], None] = lambda step, steps, loss: None,
    keeper: Keeper | None = None,
    teacher: Network | None = None,
) -> float:
    """Train the network in place; returns the mean loss of the last tenth of the steps.

    keeper: saves the state, and may end the training before its last step
    teacher: a trained network, whose deepest exit the exits learn from where the settings say so

    Raises ConfigError at the first loss that is not finite.

    progress(step, steps, loss) is called after every step.
    """
    keras.utils.set_random_seed(settings.seed + 1)
    generator = np.random.default_rng(settings.seed)
    members = len(network.hierarchy.devices)
    size = network.image_shape[:2]
    binary = network.architecture.style == "binary"
    optimizer = keras.optimizers.AdamW(
        learning_rate=settings.learning_rate,
        weight_decay=0.0 if binary else settings.weight_decay,
        beta_2=0.99,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    variables = network.trainable_variables
    optimizer.build(variables)
    averages = _Averages(network, settings.average) if settings.average else None
    pruner = Pruner(network, settings.pruning, settings.steps) if settings.pruning else None
    keeper = keeper or Keeper()
    # `variables` has the seeds of dropout, which `weights` leaves out
    state = [v for model in network.models for v in model.variables] + list(optimizer.variables)
    losses = keeper.begin([*state, *(pruner.masks if pruner else [])], averages, settings.steps)

    @tf.function  # type: ignore[untyped-decorator]
    def step(
        images: Any, labels: Any, view_labels: Any, mask: Any, numbers: tuple[Any, ...], count: Any
    ) -> Any:
        x = augment.apply(
            images, augment.Draw(*numbers), settings.augmentation.noise, network.image_shape
        )
        with tf.GradientTape() as tape:
            exits = network(x, mask, training=True)
            loss = compute_joint_loss(exits, labels, view_labels, network.classes, settings)
            if settings.distillation != "off":
                answers = teacher(x, tf.ones_like(mask), training=False) if teacher else exits
                soft = tf.stop_gradient(answers["cloud"])
                loss += compute_distillation_loss(exits, soft, settings, teacher is not None)
        gradients = tape.gradient(loss, variables)
        pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        optimizer.apply_gradients(pairs)
        if pruner:
            pruner.apply()
        if averages:
            averages.update(count)
        return loss

    for number in range(settings.steps):
        warm = min(1.0, (number + 1) / settings.warm_up_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * number / settings.steps))
        optimizer.learning_rate.assign(settings.learning_rate * warm * cosine)
        images, labels, view_labels = batches(generator, settings.batch)
        mask = draw_member_mask(generator, settings.batch, members, settings)
        numbers = augment.draw(
            generator, settings.augmentation, settings.batch, members, size, images.shape[2:4]
        )
        if number < keeper.first:
            continue  # a former process has done it; the random numbers go on from there
        loss = step(
            tf.constant(images),
            tf.constant(labels),
            tf.constant(view_labels),
            tf.constant(mask),
            msgspec.structs.astuple(numbers),
            tf.constant(float(number + 1)),
        )
        if pruner:
            pruner.prune_after(number + 1)
        value = float(loss)
        losses.add(value)
        if not math.isfinite(value):
            raise ConfigError(
                f"the loss is {value} at step {number + 1} of {settings.steps}; expected a "
                "finite number: look for logarithms, divisions and roots of 0 in your own sections "
                "(--section)"
            )
        progress(number + 1, settings.steps, value)
        if keeper.is_over(number + 1, settings.steps, settings.warm_up_steps):
            break
    keeper.finish()
    if averages:
        averages.apply()
    if pruner:
        pruner.apply()  # the averages include values from before pruning
    for model in network.models:
        if not all(np.isfinite(np.asarray(weight)).all() for weight in model.trainable_weights):
            raise ConfigError(
                f"the weights of {model.name} are not finite after {settings.steps} steps; look "
                "for gradients that overflow in your own sections (--section)"
            )
    return losses.compute_mean()


def compute_joint_loss(
    exits: dict[Any, Any], labels: Any, view_labels: Any, classes: int, settings: Fit
) -> Any:
    """Sum over the exits of their weighted cross entropies (notes A4)."""
    smooth = settings.label_smoothing
    target = tf.one_hot(labels, classes) * (1 - smooth) + smooth / classes
    total = 0.0
    for tier, scores in exits.items():
        if tier not in settings.weights:
            continue
        if tier == "device":
            each = tf.one_hot(view_labels, classes) * (1 - smooth) + smooth / classes
            seen = tf.cast(view_labels >= 0, tf.float32)
            entropy = tf.nn.softmax_cross_entropy_with_logits(each, scores) * seen
            mean = tf.reduce_sum(entropy) / (tf.reduce_sum(seen) + 1e-6)
        else:
            mean = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, scores))
        total += settings.weights[tier] * mean
    return total


def compute_distillation_loss(
    exits: dict[Any, Any], scores: Any, settings: Fit, deepest: bool
) -> Any:
    """Weighted cross entropy of the exits with softened scores, times the temperature squared, so
    that gradients keep their size (Hinton et al. 2015). deepest: whether the deepest exit learns
    too."""
    heat = settings.temperature
    target, total = tf.nn.softmax(scores / heat), 0.0
    for tier in ("local", "edge", "cloud") if deepest else ("local", "edge"):
        if tier in exits and settings.weights.get(tier):
            cross = tf.nn.softmax_cross_entropy_with_logits(target, exits[tier] / heat)
            total += settings.weights[tier] * tf.reduce_mean(cross)
    return settings.distillation_weight * heat**2 * total


class _Averages:
    """Exponential averages of weights and batch statistics."""

    def __init__(self, network: Network, momentum: float) -> None:
        self._momentum = momentum
        self._variables = [
            v for model in network.models for v in model.weights if "seed" not in v.path
        ]
        self._averages = [tf.Variable(tf.convert_to_tensor(v)) for v in self._variables]

    def update(self, count: Any) -> None:
        """Add the present values; `count`: of updates, for a shorter average at the start."""
        momentum = tf.minimum(self._momentum, count / (count + 10.0))
        for average, variable in zip(self._averages, self._variables, strict=True):
            value = tf.convert_to_tensor(variable)
            average.assign(momentum * average + (1 - momentum) * value)

    @property
    def variables(self) -> list[Any]:
        return self._averages

    def swap(self) -> None:
        """Exchange the variables with their averages."""
        for average, variable in zip(self._averages, self._variables, strict=True):
            value = tf.convert_to_tensor(variable) + 0  # a copy: assign changes the buffer
            variable.assign(average)
            average.assign(value)

    def apply(self) -> None:
        """Replace the variables by their averages."""
        for average, variable in zip(self._averages, self._variables, strict=True):
            variable.assign(average)
