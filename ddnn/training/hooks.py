"""Functions of users, named such as my_package.my_module:build."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from ddnn.errors import ConfigError


def load_function(hook: str, option: str) -> Callable[..., Any]:
    """Import a function by "package.module:function", also of the current directory.

    option: as the user wrote it, for the message. ConfigError where there is no such function.
    """
    module, _, name = hook.partition(":")
    try:
        if (here := os.getcwd()) not in sys.path:  # the command `ddnn` lies elsewhere
            sys.path.append(here)
        function = getattr(importlib.import_module(module), name)
        if not callable(function):
            raise TypeError(f"{name} is not callable")
    except Exception as error:  # of any type: the module runs
        raise ConfigError(
            f"{option}: {type(error).__name__}: {error}; expected package.module:function"
        ) from None
    return function  # type: ignore[no-any-return]
