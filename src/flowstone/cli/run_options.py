"""What the command line says of a run: `--config`, `--config-file`, `--tag`, `--metadata`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flowstone.core.config_type import CommandText
from flowstone.errors import OptionsError

ConfigValues = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        metavar="KEY=VALUE",
        help="Configure the run: rows=10, window.since=2024-01-31, or by asset orders.rows=10. May be repeated.",
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config-file", metavar="FILE", help="Read the config of the run: JSON or TOML.")
]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="NAME", help="A name to find the run by. May be repeated.")
]
MetadataValues = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="A fact about the run, for people. May be repeated."),
]


def read_about(
    config: Sequence[str] | None,
    config_file: Path | None,
    tags: Sequence[str] | None,
    metadata: Sequence[str] | None,
) -> dict[str, Any]:
    """Return what the command line says of a run, as keywords of the verbs.

    Raises:
        OptionsError: it cannot be read; names the option.

    Example:
        >>> read_about(["rows=10", "window.since=2024-01-31"], None, ["nightly"], None)
        {'config': {'rows': '10', 'window': {'since': '2024-01-31'}}, 'tags': ['nightly']}
    """
    about: dict[str, Any] = {}
    if config or config_file is not None:
        about["config"] = _nested("--config", config or (), _read_file(config_file) if config_file else {})
    if tags:
        about["tags"] = list(tags)
    if metadata:
        about["metadata"] = _nested("--metadata", metadata, {}, dotted=False)
    return about


def _nested(option: str, pairs: Sequence[str], found: dict[str, Any], *, dotted: bool = True) -> dict[str, Any]:
    """Put `a.b=value` pairs into a document; the types of the config decide what the texts mean."""
    for pair in pairs:
        path, equals, value = pair.partition("=")
        names = path.split(".") if dotted else [path]
        if not equals or not all(names):
            raise OptionsError(f"{option} {pair!r}: give KEY=VALUE, such as {option} rows=10.")
        place = found
        for name in names[:-1]:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise OptionsError(f"{option} {pair!r}: {name!r} has a value, and cannot have fields as well.")
        if isinstance(place.get(names[-1]), dict):
            raise OptionsError(f"{option} {pair!r}: {names[-1]!r} has fields, and cannot have a value as well.")
        place[names[-1]] = CommandText(value)
    return found


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except OSError as error:
        raise OptionsError(f"--config-file {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        kind = "TOML" if path.suffix.lower() == ".toml" else "JSON"
        raise OptionsError(f"--config-file {path} is no valid {kind}: {error}.") from error
    if not isinstance(document, dict):
        raise OptionsError(f"--config-file {path}: expected an object of names and values.")
    return document
