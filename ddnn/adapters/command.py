"""The command line and configuration of apps and commands, made from one typed schema by click.

A field of the schema is a flag `--field-name`, an environment variable `DDNN_FIELD_NAME` (of the
command `ddnn demo`: `DDNN_DEMO_FIELD_NAME`) and a key `field_name` in the TOML file; the flag wins
over the environment, that over the file. A bool is a flag without a value; a tuple is a flag that
may be given several times, in the environment its values stand between commas. Unknown keys are
refused. Programs end with the exit code of the error (see ddnn.errors).
"""

from __future__ import annotations

import logging
import os
import sys
import tomllib
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from ddnn.adapters.config_sources import Sources
from ddnn.adapters.joined import join_site
from ddnn.core.text import decode_text
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
    epilog: str | None = None,
    prefix: str = PREFIX,
) -> click.Command:
    """The command `name`: reads the configuration, checks it, calls `run`.

    prefix: of the environment variables

    With --check it calls `check` instead, which raises a DdnnError where `run` could not start.
    Standard output then begins as soon as the keys are found to be valid: `ddnn doctor` reads it.
    """

    def callback(**given: Any) -> None:
        with exit_codes():
            file = given.pop("config", None)
            only_check = given.pop("check", False)
            config = read_config(schema, given, os.environ, file, prefix=prefix)
            level = getattr(config, "log_level", None)
            if level is not None:
                logging.basicConfig(level=level.upper(), format=LOG_FORMAT, stream=sys.stderr)
            try:
                if only_check:
                    if check is not None:
                        click.echo(f"{name}: the keys are valid")
                        check(config)
                    click.echo(f"{name}: the configuration is valid")
                else:
                    run(config)
            except ConfigError as error:
                sources = _collect_values(schema, given, os.environ, file, prefix)[1]
                raise ConfigError(sources.explain(str(error), config.__struct_fields__)) from error

    params = schema_options(schema, prefix)
    params.append(click.Option(["--check"], is_flag=True, help="Check the configuration and exit."))
    return click.Command(name, params=params, callback=callback, help=description, epilog=epilog)


def schema_options(schema: type[msgspec.Struct], prefix: str = PREFIX) -> list[click.Parameter]:
    """A flag for each field of the schema, and --config.

    prefix: of the environment variables
    """
    params: list[click.Parameter] = [_make_option(f) for f in msgspec.structs.fields(schema)]
    text = f"TOML file with these keys; the environment ({prefix}…) and flags win over it."
    params.append(click.Option(["--config"], type=click.Path(), help=text))
    return params


def read_config(
    schema: type[Schema],
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: str | Path | None = None,
    *,
    others: bool | Collection[str] = False,
    prefix: str = PREFIX,
) -> Schema:
    """Flags over environment over file over defaults; ConfigError names the key and the remedy.

    flags:  None and () stand for flags that were not given
    others: keys of other schemas that the file may hold, too; True: whichever
    prefix: of the environment variables
    """
    values, sources = _collect_values(schema, flags, environ, file, prefix)
    fields = {field.encode_name for field in msgspec.structs.fields(schema)}
    for key in list(values):
        if key in fields:
            continue
        if others is True or (others and key in others):
            del values[key]
        else:
            where = "" if key in flags else f" (in {file})"
            raise ConfigError(f"unknown key {key!r}; known: {', '.join(sorted(fields))}{where}")
    try:
        return msgspec.convert(values, schema, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(sources.explain_invalid(str(error), prefix)) from None
    except ConfigError as error:
        raise ConfigError(sources.explain(str(error), fields)) from None


def _collect_values(
    schema: type[msgspec.Struct],
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: str | Path | None,
    prefix: str,
) -> tuple[dict[str, Any], Sources]:
    """The values that are given, and where each comes from."""
    values: dict[str, Any] = {}
    sources = Sources()
    if file is not None:
        values = _read_toml(file)
        sources.add_file(file, values)
    for field in msgspec.structs.fields(schema):
        key, name = field.encode_name, prefix + field.encode_name.upper()
        text = environ.get(name)
        if text is not None:
            values[key] = text.split(",") if _is_tuple(field) else text
            sources.add_variable(key, name, text)
        value = str(values.get(key, ""))
        if ":" in value and (_find_meta(field, "extra") or {}).get("names_code"):
            raise ConfigError(
                f"{sources.describe(key)}: key {key!r} names code to run, which no file and no "
                f"variable may do; expected --{key.replace('_', '-')} on the command line"
            )
    given = {key: value for key, value in flags.items() if value not in (None, ())}
    values.update(given)
    sources.add_flags(given)
    if values.get("site_file") and "site_file" in schema.__struct_fields__:
        join_site(values)
    return values, sources


def _read_toml(file: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(decode_text(Path(file).read_bytes()))
    except OSError as error:
        raise ConfigError(f"--config {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config {file}: not TOML: {error}; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--config {file}: not TOML: {error}") from None


class exit_codes:  # noqa: N801  reads as a statement: `with exit_codes():`
    """Turns a DdnnError into one line on standard error and its exit code."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DdnnError):
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code)


def _make_option(field: msgspec.structs.FieldInfo) -> click.Option:
    flag = "--" + field.encode_name.replace("_", "-")
    text = _describe(field)
    if getattr(field.type, "__origin__", field.type) is bool:
        return click.Option([flag], is_flag=True, default=None, help=text)
    several = _is_tuple(field)
    return click.Option(
        [flag], default=None, multiple=several, help=text, metavar=_choose_metavar(field)
    )


def _is_tuple(field: msgspec.structs.FieldInfo) -> bool:
    return isinstance(field.default, tuple)


def _find_meta(field: msgspec.structs.FieldInfo, name: str) -> Any:
    """This attribute of the field's Meta, None where it is not set."""
    metas = getattr(field.type, "__metadata__", ())
    return next((found for m in metas if (found := getattr(m, name, None))), None)


def _describe(field: msgspec.structs.FieldInfo) -> str:
    text = _find_meta(field, "description") or ""
    shown = field.default not in (None, "", ()) and field.default is not False
    default = f" [{field.default}]" if shown and not field.required else ""
    return text + (" (required)" if field.required else default)


def _choose_metavar(field: msgspec.structs.FieldInfo) -> str:
    """As the schema says in Meta(extra={"metavar": …}), or the choices, or the last word."""
    given: str | None = (_find_meta(field, "extra") or {}).get("metavar")
    choices = _find_choices(field.type)
    if choices and given is None:
        return f"[{'|'.join(choices)}]"
    return given or field.name.rsplit("_", maxsplit=1)[-1].upper()


def _find_choices(kind: Any) -> list[str]:
    """The strings of a Literal, whatever stands around it."""
    inner = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return [str(choice) for choice in inner]
    return [choice for part in inner for choice in _find_choices(part)]
