"""How many samples a second this machine can take with a section."""

from __future__ import annotations

import statistics
import time

from ddnn.core.section import Section

MEASURE_S = 0.5
LEAST_CALLS = 5


def measure_section_s(section: Section, measure_s: float = MEASURE_S) -> float:
    """The median time of a call, after a first one that is not counted."""
    inputs = section.example()
    section(inputs)
    times_s: list[float] = []
    until_s = time.perf_counter() + measure_s
    while len(times_s) < LEAST_CALLS or time.perf_counter() < until_s:
        began_s = time.perf_counter()
        section(inputs)
        times_s.append(time.perf_counter() - began_s)
    return statistics.median(times_s)


def describe_speed(section: Section, image_shape: tuple[int, int, int]) -> str:
    """A line of `--check`: what the section takes of one core, and the rate that follows."""
    section_s = measure_section_s(section)
    height, width, _ = image_shape
    return (
        f"section of {width}x{height} pixels: {1e3 * section_s:.2f} ms, so that at most "
        f"{1 / section_s:.0f} samples/s are possible here"
    )
