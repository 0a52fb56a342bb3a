"""What the layers of a network cost in training: the profile that simulated pipelines compute with.

    python -m benchmarks.pipeline_profile --data cifar10 --model mobilenet-0.5 --batch 128 --json

Every layer is measured alone, with one thread, as the central node of a pipeline does at its start:
seconds of a forward, seconds of a backward with its update, bytes of its output and of its state.
Seconds are CPU seconds of this process, which other programs on the machine change little.

Three ratios of the same run follow:

- sum_over_whole: the sum of the layers over one stage of all layers, which is plain training. What
  exceeds 1 is what the borders between stages cost;
- halves_over_whole: two stages of about the same times, over one stage;
- recompute_over_kept: a stage of the first half that computes its forward again for the backward,
  over one that keeps its intermediate tensors, which take kept_bytes of each batch in flight.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from benchmarks.harness.report import Report, make_header, make_parser, print_report
from ddnn.errors import DdnnError
from ddnn.pipeline.stage import LayerProfile

BATCHES = 5  # measured after one that compiles


def main() -> None:
    parser = make_parser(__doc__, "of weights and batches")
    parser.add_argument("--data", default="cifar10", help="NAME[:PATH] of the data set [cifar10]")
    parser.add_argument("--model", default="mobilenet-0.5", help="network [mobilenet-0.5]")
    parser.add_argument("--batch", type=int, default=128, help="samples of a batch [128]")
    options = parser.parse_args()
    try:
        report = measure(options.data, options.model, options.batch, options.seed)
    except DdnnError as error:
        sys.exit(f"{error}")
    print_report({**make_header("pipeline_profile"), **report}, as_json=options.json)


def measure(data: str, model: str, batch: int, seed: int) -> Report:
    """The profile of a network on one batch of a data set, and the ratios."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from ddnn.data import load
    from ddnn.training.stages.batches import make_batches
    from ddnn.training.stages.factory import KerasStages
    from ddnn.training.stages.families import parse_network
    from ddnn.training.stages.threads import set_threads

    set_threads(1)
    dataset = load(data, seed=seed)
    images, labels = make_batches(dataset.train, batch, seed=seed).make(0)
    network = parse_network(model, images.shape[1:], len(dataset.classes), seed)
    stages = KerasStages(network, clock=time.process_time)
    profiles = stages.profile(images, labels)
    half = find_half(profiles)

    whole = stages.build(0, stages.layers)

    def train_whole(number: int) -> None:
        whole.train_last(number, images, labels)
        whole.apply()

    whole_s = measure_s(train_whole)
    first, last = stages.build(0, half), stages.build(half, stages.layers)

    def train_halves(number: int) -> None:
        result = last.train_last(number, first.forward(number, images), labels)
        last.apply()
        first.backward(number, result.gradient)  # type: ignore[arg-type]
        first.apply()

    halves_s = measure_s(train_halves)
    kept_bytes = measure_kept_bytes(first, images)
    again = KerasStages(network, recompute=True).build(0, half)
    kept_s = measure_s(lambda number: run_alone(first, number, images))
    recomputed_s = measure_s(lambda number: run_alone(again, number, images))
    total_s = sum(profile.forward_s + profile.backward_s for profile in profiles)
    return {
        "model": model,
        "data": data.partition(":")[0],
        "batch": batch,
        "threads": 1,
        "layers": [
            {
                "forward_s": round(profile.forward_s, 6),
                "backward_s": round(profile.backward_s, 6),
                "output_bytes": profile.output_bytes,
                "state_bytes": profile.state_bytes,
            }
            for profile in profiles
        ],
        "whole_s": round(whole_s, 4),
        "sum_over_whole": round(total_s / whole_s, 3),
        "halves": [half, stages.layers - half],
        "halves_over_whole": round(halves_s / whole_s, 3),
        "kept_bytes": kept_bytes,
        "recompute_over_kept": round(recomputed_s / kept_s, 3),
    }


def find_half(profiles: Sequence[LayerProfile]) -> int:
    """The number of layers whose times are nearest to half of all."""
    sums = list(accumulate(profile.forward_s + profile.backward_s for profile in profiles))
    return 1 + min(range(len(sums) - 1), key=lambda layer: abs(sums[layer] - sums[-1] / 2))


def measure_s(run: Callable[[int], object]) -> float:
    """The median CPU time of a call, after one that compiles."""
    run(0)
    times = []
    for number in range(1, BATCHES + 1):
        started_s = time.process_time()
        run(number)
        times.append(time.process_time() - started_s)
    return statistics.median(times)


def run_alone(stage: Any, number: int, images: Any) -> None:
    """A forward and a backward of a first stage, whatever follows it."""
    outputs = stage.forward(number, images)
    stage.backward(number, np.ones_like(outputs))
    stage.apply()


def measure_kept_bytes(stage: Any, images: Any) -> int:
    """How much the memory of this process grows with each batch in flight."""
    before = read_resident_bytes()
    for number in range(1000, 1000 + BATCHES):
        stage.forward(number, images)
    grown = read_resident_bytes() - before
    stage.discard()
    return grown // BATCHES


def read_resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    main()
