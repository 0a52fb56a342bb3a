"""Every effect has one row in the interpreter, and both hosts perform it."""

from __future__ import annotations

import re
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from ddnn.core.site_time import SiteTime
from ddnn.protocol.machine import (
    Call,
    Compute,
    Effect,
    Forget,
    Keep,
    KeepTime,
    Load,
    Log,
    Publish,
    ReadPlan,
    Save,
    Subscribe,
    Unload,
    UseBundle,
)
from ddnn.protocol.messages import AnswerAck
from ddnn.protocol.topics import Kind, Topic
from ddnn.runtime.effects import Host, perform
from ddnn.runtime.host import NodeHost
from ddnn.runtime.simulated_node import SimulatedNode
from tests.answer_builder import make_answer

EXAMPLES: list[Effect] = [
    Publish(Topic("home", Kind.ACK, "cam1"), AnswerAck([1])),
    Compute(("job", 1), "edge", {"x": np.zeros(1)}),
    Call(("job", 2), list),
    Load("edge"),
    Unload("edge"),
    ReadPlan("cd34ef56"),
    Subscribe(["ddnn/v1/home/task/edge"]),
    Keep(make_answer(1)),
    Forget([1]),
    KeepTime(SiteTime(0, 1.78e9)),
    Save([]),
    UseBundle("cd34ef56"),
    Log("info", "text"),
]
METHODS = [name for name in vars(Host) if not name.startswith("_")]


def name_method(effect: type) -> str:
    """Publish: publish; TwoWords: two_words."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", effect.__name__).lower()


class Recorder:
    """Any method of a host: notes its name and what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda effect: self.calls.append((name, effect))


def test_there_is_an_example_of_every_effect() -> None:
    assert {type(example) for example in EXAMPLES} == set(get_args(Effect))


@pytest.mark.parametrize("effect", EXAMPLES, ids=lambda effect: type(effect).__name__)
def test_every_effect_goes_to_the_method_of_its_name(effect: Effect) -> None:
    recorder: Any = Recorder()
    perform(effect, recorder)
    assert recorder.calls == [(name_method(type(effect)), effect)]


def test_the_interface_of_hosts_has_one_method_for_each_effect() -> None:
    assert set(METHODS) == {name_method(kind) for kind in get_args(Effect)}


@pytest.mark.parametrize("host", [NodeHost, SimulatedNode])
@pytest.mark.parametrize("method", METHODS)
def test_both_hosts_perform_every_effect(host: type, method: str) -> None:
    assert method in vars(host), f"{host.__name__} does not perform {method}"
    assert get_type_hints(vars(host)[method]) == get_type_hints(getattr(Host, method))


def test_what_is_no_effect_is_refused() -> None:
    recorder: Any = Recorder()
    nothing: Any = object()
    with pytest.raises(AssertionError):
        perform(nothing, recorder)
