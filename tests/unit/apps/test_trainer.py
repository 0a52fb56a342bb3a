"""A node that lends takes part in trainings where TensorFlow is installed, and says where not."""

from __future__ import annotations

import importlib.util
import logging
import sys

import pytest

from ddnn.errors import ConfigError
from device_app import trainer
from device_app.settings import DeviceSettings


def test_without_tensorflow_a_node_lends_without_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        assert trainer.open_trainer("home", "worker1", (), None, 1.0) is None
    assert "pip install 'ddnn[train]'" in caplog.text


def test_blocked_modules_count_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert not trainer.can_train()


def test_a_node_that_offers_itself_has_not_imported_tensorflow() -> None:
    before = set(sys.modules)
    opened = trainer.open_trainer("home", "worker1", (), None, 1.0)
    assert opened is None or not opened.is_at_work
    assert not {"tensorflow", "keras"} & (set(sys.modules) - before)


def test_a_node_without_a_source_and_a_bundle_only_trains() -> None:
    assert DeviceSettings(node="worker1", lend="on").bundle == ""
    assert DeviceSettings(node="cam1", source="dataset:scenes").bundle == "bundle"
    with pytest.raises(ConfigError, match="--lend on"):
        DeviceSettings(node="cam1", source="dataset:scenes", bundle="b", slow=2.0)
