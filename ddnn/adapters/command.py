"""The command line and configuration of every app, made from one typed schema by click.

A field of the schema is a flag `--field-name`, an environment variable `DDNN_FIELD_NAME` and a
key `field_name` in the TOML file; the flag wins over the environment, that over the file. Unknown
keys are refused. Programs end with the exit code of the error (see ddnn.errors).
"""

from __future__ import annotations

import logging
import os
import sys
import tomllib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from ddnn.errors import ConfigError, DdnnError

Schema = TypeVar("Schema", bound=msgspec.Struct)
PREFIX = "DDNN_"
LOG_FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"


def app_command(
    schema: type[Schema],
    run: Callable[[Schema], None],
    *,
    name: str,
    description: str,
    check: Callable[[Schema], None] | None = None,
) -> click.Command:
    """The command `name`: reads the configuration, checks it, calls `run`.

    With --check it calls `check` instead, which raises a DdnnError where `run` could not start.
    Standard output then begins as soon as the keys are found to be valid: `ddnn doctor` reads it.
    """

    def callback(**given: Any) -> None:
        with exit_codes():
            file = given.pop("config", None)
            only_check = given.pop("check", False)
            flags = {key: value for key, value in given.items() if value is not None}
            config = read_config(schema, flags, os.environ, file)
            logging.basicConfig(
                level=getattr(config, "log_level", "info").upper(),
                format=LOG_FORMAT,
                stream=sys.stderr,
            )
            if only_check:
                if check is not None:
                    click.echo(f"{name}: the keys are valid")
                    check(config)
                click.echo(f"{name}: the configuration is valid")
            else:
                run(config)

    params = schema_options(schema)
    params.append(click.Option(["--check"], is_flag=True, help="Check the configuration and exit."))
    return click.Command(name, params=params, callback=callback, help=description)


def schema_options(schema: type[msgspec.Struct]) -> list[click.Parameter]:
    """A flag for each field of the schema, and --config."""
    params: list[click.Parameter] = [
        click.Option(
            ["--" + field.name.replace("_", "-")],
            default=None,
            help=_help(schema, field),
            metavar=_metavar(field),
        )
        for field in msgspec.structs.fields(schema)
    ]
    params.append(click.Option(["--config"], type=click.Path(), help="TOML file with these keys."))
    return params


def read_config(
    schema: type[Schema],
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: str | Path | None = None,
    *,
    others: bool = False,
) -> Schema:
    """Flags over environment over file over defaults; ConfigError names the key and the remedy.

    `others`: the file may hold keys of other schemas, too.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            with Path(file).open("rb") as handle:
                values.update(tomllib.load(handle))
        except OSError as error:
            raise ConfigError(f"--config {file}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"--config {file}: not TOML: {error}") from None
    names = [field.name for field in msgspec.structs.fields(schema)]
    values.update({n: environ[PREFIX + n.upper()] for n in names if PREFIX + n.upper() in environ})
    values.update(flags)
    for key in list(values):
        if key not in names and others:
            del values[key]
        elif key not in names:
            raise ConfigError(f"unknown key {key!r}; known: {', '.join(sorted(names))}")
    try:
        return msgspec.convert(values, schema, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"configuration: {error}") from None


class exit_codes:  # noqa: N801  reads as a statement: `with exit_codes():`
    """Turns a DdnnError into one line on standard error and its exit code."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DdnnError):
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)


def _help(schema: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> str:
    hints = typing.get_type_hints(schema, include_extras=True)
    metas = getattr(hints[field.name], "__metadata__", ())
    text = next((m.description for m in metas if getattr(m, "description", None)), "")
    default = "" if field.required or field.default in (None, "") else f" [{field.default}]"
    return text + (" (required)" if field.required else default)


def _metavar(field: msgspec.structs.FieldInfo) -> str:
    return field.name.rsplit("_", maxsplit=1)[-1].upper()
