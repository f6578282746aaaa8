"""Settings: file < environment < arguments, frozen once read."""

from __future__ import annotations

import inspect
import json
import logging
import os
import re
import stat
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, unquote_plus

from flowstone.core.clean import hide_values, is_secret_name, mask_secrets
from flowstone.core.declaring import checks_options
from flowstone.core.project import DEFAULT_PROJECT, check_project
from flowstone.errors import ConfigurationError, did_you_mean, option_hint

DEFAULT_QUEUES: Mapping[str, int] = {"assets": 10, "priority": 5, "backfill": 20, "checkpoints": 2, "sensors": 3}
_TEXTS = frozenset({"database_url", "storage", "project", "executor", "app", "dashboard_url"})
_URL = re.compile(r"https?://[^\s/]+(?:/\S*)?")
_LINE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]+")
"""A text that can be an address, a path or a name: one line that PostgreSQL and files can hold."""
_SWITCHES = frozenset({"previews", "notifications"})
_PREFIX = "FLOWSTONE_"
_MAX_SECRET_FILE = 64 * 1024
DEFAULT_OBAN: Mapping[str, Any] = {"prune_after_seconds": 86_400.0, "metrics": False, "name": "flowstone"}
_OBAN_ENVIRONMENT = {name: f"{_PREFIX}OBAN_{name.upper()}" for name in DEFAULT_OBAN}
_MAX_NAME = 100
_MAX_QUEUE = 127
_MAX_SECONDS = 100 * 365 * 86_400
_MAX_DAYS = 100 * 365
_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_warned: set[Path] = set()
log = logging.getLogger("flowstone")


@checks_options
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set for an app and its workers.

    Args:
        database_url: PostgreSQL to record in and to queue on; `embedded` (or `embedded:DIRECTORY`) for the
            one that comes in a wheel; None keeps everything in memory.
        storage: directory of the filesystem IO manager and of the embedded database.
        project: which of the projects that share the database: each has assets, queues, limits, automations,
            keys and workers of its own.
        executor: executor used when a call names none.
        app: `module:attribute` of the app, for the command line.
        queues: queue name to number of steps that one worker node runs at once.
        deps_timeout_seconds: how long durable steps wait for inputs from outside their run.
        snooze_seconds: how often they poll meanwhile.
        beat_seconds: how often a worker renews its lease.
        lease_seconds: after how long without a beat a worker counts as lost.
        grace_seconds: how long a stopping worker lets running steps finish.
        sweep_seconds: how often workers look for what a lost notification or worker left behind.
        conditions_seconds: how often workers evaluate the condition of an asset while nothing moves.
        retention_days: age of the end of a run after which `prune` forgets what nothing needs any more.
        log_days: how long what steps log is kept; 0 keeps nothing of it, and then nothing is captured.
        dashboard_url: address of the dashboard, to which notifications link.
        notifications: whether notifications are sent; else they are only decided on and kept.
        previews: whether pages show values to operators: they are loaded for that, pickles apart.
        secrets: names of more environment variables whose values are masked wherever they stand; those whose name
            says so (`..._PASSWORD`, `..._TOKEN`) need no mention.
        memory_steps: how many steps that are over, and that nothing needs, an app in memory remembers.
        oban: how workers use Oban: `prune_after_seconds`, age at which FlowStone's rows of `oban_jobs` that are
            over are deleted (a day; 0 or None keeps them; those of other applications are never touched),
            `metrics`, whether workers broadcast what Oban's dashboard shows, and `name`, of their Oban instance.

    Raises:
        ConfigurationError: `oban` has an unknown key or a value that cannot work.

    Example:
        >>> Settings().executor
        'auto'
    """

    database_url: str | None = None
    storage: str = ".flowstone"
    project: str = DEFAULT_PROJECT
    executor: str = "auto"
    app: str | None = None
    queues: Mapping[str, int] = field(default_factory=lambda: dict(DEFAULT_QUEUES))
    deps_timeout_seconds: float = 3600.0
    snooze_seconds: float = 30.0
    beat_seconds: float = 5.0
    lease_seconds: float = 30.0
    grace_seconds: float = 30.0
    sweep_seconds: float = 15.0
    conditions_seconds: float = 5.0
    retention_days: float = 90.0
    log_days: float = 14.0
    memory_steps: int = 10_000
    dashboard_url: str | None = None
    notifications: bool = True
    previews: bool = False
    secrets: Sequence[str] = ()
    oban: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "oban", _checked_oban(self.oban))
        if isinstance(self.storage, str):  # which no shell has seen when it stands in a file or a unit of systemd
            object.__setattr__(self, "storage", os.path.expanduser(self.storage))  # noqa: PTH111 - stays a text
        if isinstance(self.secrets, list):
            object.__setattr__(self, "secrets", tuple(self.secrets))
        hide_values(_secrets_in(os.environ))
        if isinstance(self.secrets, tuple):
            hide_values(
                [os.environ[name] for name in self.secrets if isinstance(name, str) and name in os.environ]
            )
        if isinstance(self.database_url, str):
            hide_values(_secrets_of_url(self.database_url))

    def __repr__(self) -> str:
        shown = ", ".join(f"{item.name}={getattr(self, item.name)!r}" for item in fields(self))
        return mask_secrets(f"Settings({shown})")

    @classmethod
    def load(cls, *, directory: Path | None = None, **arguments: Any) -> Settings:
        """Read settings from the file, then the environment, then the arguments.

        Args:
            directory: where to look for `flowstone.toml` or `pyproject.toml`, and upwards from there; the
                current directory by default.
            **arguments: settings by name; None means not given.

        Raises:
            ConfigurationError: a setting is unknown or has the wrong type; names the file.
        """
        known = {item.name for item in fields(cls)}
        found, places = read_settings(directory)
        if arguments.get("oban") is not None:
            arguments["oban"] = {**found.get("oban", {}), **_table("oban", arguments["oban"], "arguments")}
        for name, value in arguments.items():
            if name not in known:
                raise ConfigurationError(f"There is no setting {name!r}.{option_hint(name, known)}")
            if value is not None:
                found[name], places[name] = value, "arguments"
        try:
            settings = replace(cls(), **found)
        except ConfigurationError as error:
            raise ConfigurationError(f"{places.get('oban', 'arguments')}: {error}") from error
        settings.check(places)
        return settings

    def check(self, where: str | Mapping[str, str]) -> None:
        """Refuse settings that cannot work.

        Args:
            where: where they were set, for errors: all of them, or each by its name.

        Raises:
            ConfigurationError: naming the setting and where it was set.
        """

        def refuse(name: str, must: str) -> NoReturn:
            place = where if isinstance(where, str) else where.get(name, "arguments")
            # what lies in a file may be a secret that was meant for another variable
            shown = "" if f"{_PREFIX}{name.upper()}_FILE" in place else f"={getattr(self, name)!r}"
            raise ConfigurationError(f"{place}: {name}{shown} {must}")

        for item in fields(self):
            name, value = item.name, getattr(self, item.name)
            if name.endswith("_seconds"):
                if not _is_number(value, _MAX_SECONDS) or value == 0:
                    refuse(name, f"must be a number above 0, and at most {_MAX_SECONDS} (a hundred years).")
            elif name.endswith("_days"):
                if not _is_number(value, _MAX_DAYS):
                    refuse(name, f"must be a number of days from 0 to {_MAX_DAYS} (a hundred years).")
            elif name == "memory_steps" and (type(value) is not int or value < 1):
                refuse(name, "must be a whole number above 0.")
            elif name in _SWITCHES and not isinstance(value, bool):
                refuse(name, "must be true or false.")
            elif name == "secrets" and not (
                isinstance(value, tuple) and all(isinstance(one, str) and one for one in value)
            ):
                refuse(name, "must be a list of names of variables.")
            elif name in _TEXTS and value is not None and not (isinstance(value, str) and _LINE.fullmatch(value)):
                refuse(name, "must be text of one line, or left out.")
        if self.dashboard_url is not None and not _URL.fullmatch(self.dashboard_url):
            refuse("dashboard_url", "must be https://HOST/...")
        try:
            check_project(self.project)
        except ConfigurationError as error:
            refuse("project", f"cannot be {str(error).rpartition(' cannot be ')[2]}")
        if not _are_queues(self.queues):
            refuse("queues", f"must map names of 1 to {_MAX_QUEUE} printable characters to limits of at least 1.")
        if self.lease_seconds < 2 * self.beat_seconds:
            refuse(
                "lease_seconds" if isinstance(where, str) or "lease_seconds" in where else "beat_seconds",
                f"does not fit: lease_seconds={self.lease_seconds:g} must be at least twice beat_seconds="
                f"{self.beat_seconds:g}, or one late beat would take a worker's steps away.",
            )


def read_settings(directory: Path | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings of the file and of the environment by name, and where each was set.

    Args:
        directory: where to look for the file, and upwards from there; the current directory by default.

    Raises:
        ConfigurationError: the file or a variable cannot be read, or the file has an unknown setting.
    """
    path, found = read_settings_file(directory or Path.cwd())
    known = {item.name for item in fields(Settings)}
    for name in found:
        if name not in known:
            raise ConfigurationError(f"{path}: there is no setting {name!r}.{option_hint(name, known)}")
    places = dict.fromkeys(found, str(path))
    if "oban" in found:
        found["oban"] = _table("oban", found["oban"], str(path))
    variables = _from_environment(os.environ)
    oban = {name: one for name, key in _OBAN_ENVIRONMENT.items() if (one := _variable(key, os.environ))}
    if oban:
        variables["oban"] = (
            {**found.get("oban", {}), **_read_oban(oban)},
            ", ".join([*(one.name for one in oban.values()), *([places["oban"]] if "oban" in places else [])]),
        )
    for name, (value, place) in variables.items():
        found[name], places[name] = value, place
    return found, places


def variable_of(setting: str) -> str:
    """Return the environment variable of a setting.

    Example:
        >>> variable_of("grace_seconds")
        'FLOWSTONE_GRACE_SECONDS'
    """
    return f"{_PREFIX}{setting.upper()}"


@dataclass(frozen=True, slots=True)
class _Variable:
    """The text of a variable, or of the file that `..._FILE` names.

    Args:
        text: what it says.
        name: the variable, with the path of a file.
        shown: how errors begin; without the content of a file, which may be a secret of another variable.
    """

    text: str
    name: str
    shown: str


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Return the settings that variables hold, as values of their types, and where each was set.

    Raises:
        ConfigurationError: a variable cannot be read; names it, and shows nothing that may be secret.
    """
    found: dict[str, tuple[Any, str]] = {}
    for item in fields(Settings):
        if item.name == "oban":  # has a variable for each of its names
            continue
        variable = _variable(variable_of(item.name), environment)
        if variable is not None:
            found[item.name] = (_read(item.name, variable), variable.name)
    _warn_of_misspelt(environment)
    return found


def _variable(name: str, environment: Mapping[str, str]) -> _Variable | None:
    """Return the text of a variable, or of the file that `..._FILE` names; None when it is empty.

    White space around it is meant by nobody: editors and `echo` end a file with a line break.
    """
    given, path = environment.get(name, ""), environment.get(f"{name}_FILE")
    if not path:
        return _Variable(given.strip(), name, f"{name}={given!r}") if given.strip() else None
    if given:
        raise ConfigurationError(f"{name} and {name}_FILE are both set; leave one of them out.")
    try:
        with open(os.path.expanduser(path), "rb") as file:  # noqa: PTH111, PTH123 - a home that is unknown stays "~"
            data = file.read(_MAX_SECRET_FILE + 1)
        content = data.decode("utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"{name}_FILE={path!r} cannot be read: {reason}.") from None
    if not content or len(data) > _MAX_SECRET_FILE:
        problem = "is empty" if len(data) <= _MAX_SECRET_FILE else f"is larger than {_MAX_SECRET_FILE:,} bytes"
        raise ConfigurationError(f"{name}_FILE={path!r}: the file {problem}.")
    return _Variable(content, f"{name}_FILE={path!r}", f"{name}_FILE={path!r}: the content of the file")


def _read(name: str, variable: _Variable) -> Any:
    """Return the text of a variable as a value of its setting."""
    text = variable.text
    try:
        if name in _TEXTS:
            return text
        if name == "queues":
            pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
            queues = {queue.strip(): int(limit) for queue, _, limit in pairs}
            if len(queues) < len(pairs):
                raise ValueError("a queue is named twice")
            return queues
        if name == "secrets":
            return tuple(one.strip() for one in text.split(",") if one.strip())
        if name in _SWITCHES:
            return _SWITCH[text.lower()]
        return int(text) if name == "memory_steps" else float(text)
    except (ValueError, KeyError):
        raise ConfigurationError(f"{variable.shown} must be {_FORMS.get(name, 'a number')}.") from None


_FORMS = {
    "queues": "NAME=LIMIT,..., each name once, such as assets=10,backfill=20",
    "previews": "true or false",
    "notifications": "true or false",
    "memory_steps": "a whole number",
}


def _warn_of_misspelt(environment: Mapping[str, str]) -> None:
    """Warn of variables that are probably meant as a setting; others may be of other programs."""
    settings = [variable_of(item.name) for item in fields(Settings)]
    settings += [*_OBAN_ENVIRONMENT.values(), *_OTHER_VARIABLES]
    known = {name for one in settings for name in (one, f"{one}_FILE")}
    for name in environment:
        # Kubernetes makes variables such as FLOWSTONE_WEB_PORT of every service
        upper = name.upper()
        if not upper.startswith(_PREFIX) or name in known | _misspelt or _OF_KUBERNETES.search(name):
            continue
        bare = {one.removeprefix(_PREFIX): one for one in known}
        close = get_close_matches(upper.removeprefix(_PREFIX), bare, n=1, cutoff=0.8)
        if close:
            _misspelt.add(name)
            log.warning("The environment variable %s is no setting. Did you mean %s?", name, bare[close[0]])


_OTHER_VARIABLES = ("FLOWSTONE_SAFE_DIRECTORY", "FLOWSTONE_ENV_FILE", "FLOWSTONE_TEST_DATABASE_URL")
_OF_KUBERNETES = re.compile(r"_(?:SERVICE_HOST|SERVICE_PORT\w*|PORT(?:_\w+)?)$")
_misspelt: set[str] = set()


def settings_schema() -> dict[str, Any]:
    """Return the JSON schema of `flowstone.toml` and of `[tool.flowstone]`, for editors.

    Example:
        >>> sorted(settings_schema()["properties"])[:3]
        ['app', 'beat_seconds', 'conditions_seconds']
    """
    described = _described()
    properties: dict[str, Any] = {}
    for item in fields(Settings):
        what = described.get(item.name, "")
        about: dict[str, Any] = {"description": f"{what} Variable: {variable_of(item.name)}."}
        if item.name in _TEXTS:
            about |= {"type": "string", "minLength": 1}
        elif item.name == "queues":
            limits = {"type": "integer", "minimum": 1}
            about |= {"type": "object", "additionalProperties": limits, "minProperties": 1}
            about["default"] = dict(DEFAULT_QUEUES)
        elif item.name == "oban":
            about = {"type": "object", "additionalProperties": False, "properties": _OBAN_SCHEMA}
            about["description"] = f"{what} Variables: {', '.join(_OBAN_ENVIRONMENT.values())}."
        elif item.name == "secrets":
            about |= {"type": "array", "items": {"type": "string", "minLength": 1}}
        elif item.name in _SWITCHES:
            about |= {"type": "boolean"}
        elif item.name == "memory_steps":
            about |= {"type": "integer", "minimum": 1}
        elif item.name.endswith("_seconds"):
            about |= {"type": "number", "exclusiveMinimum": 0, "maximum": _MAX_SECONDS}
        else:
            about |= {"type": "number", "minimum": 0, "maximum": _MAX_DAYS}
        if isinstance(item.default, str | int | float):
            about["default"] = item.default
        properties[item.name] = about
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings of FlowStone",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


_OBAN_SCHEMA: Mapping[str, Any] = {
    "prune_after_seconds": {"type": "number", "minimum": 0, "maximum": _MAX_SECONDS, "default": 86_400.0},
    "metrics": {"type": "boolean", "default": False},
    "name": {"type": "string", "minLength": 1, "maxLength": _MAX_NAME, "default": "flowstone"},
}


def _described() -> dict[str, str]:
    """Return what the docstring of `Settings` says of each of them."""
    section = inspect.cleandoc(Settings.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()).replace("`", "") for name, text in found}


def _secrets_in(environment: Mapping[str, str]) -> Iterator[str]:
    """Return the values of variables with the names of secrets, and the passwords in those that are URLs."""
    for name, value in environment.items():
        if is_secret_name(name) and not value.startswith(("/", "./", "~/")):
            yield value
        elif "://" in value and "@" in value:
            yield from _secrets_of_url(value)


def _secrets_of_url(url: str) -> Iterator[str]:
    """Return the secrets in the URL of a database, or in libpq's `key=value` form, as they are and decoded."""
    user_information, at, _ = url.partition("://")[2].rpartition("@")
    user, _, password = user_information.partition(":")
    if at and password and password != user:
        yield password
        yield unquote(password)
    for name, quoted, plain in _URL_PAIR.findall(url):
        if is_secret_name(name) or name == "sslpassword":
            yield re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
            yield unquote_plus(plain)


_URL_PAIR = re.compile(r"(?:^|[?&\s])(\w{1,64})\s{0,8}=\s{0,8}(?:'((?:[^'\\]|\\.){0,2000})'|([^\s&']{1,2000}))")


def _are_queues(queues: object) -> bool:
    if not isinstance(queues, Mapping) or not queues:
        return False
    names = all(
        isinstance(name, str) and name.strip() == name and 0 < len(name) <= _MAX_QUEUE and name.isprintable()
        for name in queues
    )
    return names and all(type(limit) is int and limit >= 1 for limit in queues.values())


def _is_number(value: object, maximum: int) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= maximum


def _table(name: str, value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{place}: {name}={value!r} must map names to values, as a table does.")
    return dict(value)


def _read_oban(variables: Mapping[str, _Variable]) -> dict[str, Any]:
    """Return what environment variables say about Oban, as values."""
    found: dict[str, Any] = {name: one.text for name, one in variables.items()}
    if (one := variables.get("prune_after_seconds")) is not None:
        try:
            found["prune_after_seconds"] = None if one.text.lower() == "none" else float(one.text)
        except ValueError:
            raise ConfigurationError(f"{one.shown} must be a number of seconds, 0 or none for never.") from None
    if (one := variables.get("metrics")) is not None:
        if one.text.lower() not in _SWITCH:
            raise ConfigurationError(f"{one.shown} must be true or false.")
        found["metrics"] = _SWITCH[one.text.lower()]
    return found


def _checked_oban(given: object) -> dict[str, Any]:
    """Return the settings of Oban with defaults for what is not given."""
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"oban={given!r} must map names to values: {', '.join(DEFAULT_OBAN)}.")
    for name in given:
        if name not in DEFAULT_OBAN:
            hint = did_you_mean(str(name), DEFAULT_OBAN)
            raise ConfigurationError(
                f"oban: there is no setting {name!r}.{hint} Known: {', '.join(DEFAULT_OBAN)}."
            )
    found = {**DEFAULT_OBAN, **given}
    seconds = found["prune_after_seconds"]
    if seconds is not None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _MAX_SECONDS:
            raise ConfigurationError(
                f"oban: prune_after_seconds={seconds!r} must be a number of seconds, 0 or None for never."
            )
        found["prune_after_seconds"] = seconds or None
    if not isinstance(found["metrics"], bool):
        raise ConfigurationError(f"oban: metrics={found['metrics']!r} must be true or false.")
    name = found["name"]
    if not isinstance(name, str) or not name.strip() or len(name) > _MAX_NAME or "\x00" in name:
        raise ConfigurationError(f"oban: name={name!r} must be text of 1 to {_MAX_NAME} characters.")
    return found


def read_settings_file(directory: Path) -> tuple[Path | None, dict[str, Any]]:
    """Return the nearest settings file at or above a directory, within its project, and its settings.

    `flowstone.toml` holds settings at its top level, `pyproject.toml` under `[tool.flowstone]`. A settings file
    says which code runs and where values go, so only files count that nobody but the user and root may write.
    Going up ends at the top of a repository, at the home directory, and below a folder that others may write to.

    Raises:
        ConfigurationError: the file cannot be read, or another user may write to it.
    """
    for candidate in (directory, *directory.parents):
        if candidate != directory and (outside := _outside(candidate)):
            _warn_ignored(candidate, outside)
            break
        found = _settings_in(candidate)
        if found is not None:
            path, settings = found
            reason = distrust(path, runs_code="app" in settings)
            if reason is not None:
                raise ConfigurationError(
                    f"{path} is not used: {reason}, and a settings file decides which code runs. Make it yours "
                    f"alone (chown and chmod go-w), or, when you trust everybody who may write there, set "
                    f"FLOWSTONE_SAFE_DIRECTORY={path.parent}."
                )
            return path, settings
        if (candidate / ".git").exists():
            break
    return None, {}


def _settings_in(candidate: Path) -> tuple[Path, dict[str, Any]] | None:
    for name in ("flowstone.toml", "pyproject.toml"):
        path = candidate / name
        if not path.is_file():
            continue
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            if name == "flowstone.toml" or "[tool.flowstone" in _start(path):
                raise ConfigurationError(f"{path} cannot be read: {error}") from error
            continue
        if name == "flowstone.toml":
            return path, document
        tools = document.get("tool", {})
        if isinstance(tools, dict) and "flowstone" in tools:
            return path, _table("tool.flowstone", tools["flowstone"], str(path))
    return None


def _outside(candidate: Path) -> str | None:
    """Return why a folder above the working directory is not part of the same project."""
    if candidate == Path(os.environ.get("HOME", "/")):
        return "it is the home directory"
    return _writable_by_others(candidate)


def _warn_ignored(candidate: Path, why: str) -> None:
    for name in ("flowstone.toml", "pyproject.toml"):
        path = candidate / name
        if (
            path.is_file()
            and path not in _warned
            and (name == "flowstone.toml" or "[tool.flowstone" in _start(path))
        ):
            _warned.add(path)
            log.warning("%s is ignored: it lies outside of the project of the working directory (%s).", path, why)


def _start(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:100_000]
    except OSError:
        return ""


def distrust(path: Path, *, runs_code: bool = False) -> str | None:
    """Return why another user could decide what a file says; None when nobody could.

    Args:
        path: the file.
        runs_code: whether modules are imported from its folder, where nobody else may add files then.
    """
    target = path.resolve()
    directories = {path.absolute().parent, target.parent}
    if any(_is_safe(candidate) for candidate in directories):
        return None
    reason = _writable_by_others(target)
    for candidate in directories:
        reason = reason or _writable_by_others(candidate, sticky_helps=not runs_code)
    return reason


def _writable_by_others(path: Path, *, sticky_helps: bool = False) -> str | None:
    """Return who else may write to a file or folder, as ssh and git ask it; None when nobody may."""
    if not hasattr(os, "geteuid"):
        return None
    try:
        status = path.stat()
        if os.statvfs(path).f_flag & os.ST_RDONLY and status.st_uid in _trusted_users():
            return None  # mounted so that nobody can write, such as a ConfigMap of Kubernetes
    except OSError as error:
        return f"{path} cannot be examined ({error.strerror})"
    if status.st_uid not in _trusted_users():
        return f"{path} belongs to another user ({_user_name(status.st_uid)})"
    if sticky_helps and status.st_mode & stat.S_ISVTX:
        return None  # others may add files here, but not touch those of the user
    if status.st_mode & stat.S_IWOTH:
        return f"everybody may write to {path}"
    if status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid, status.st_uid):
        return f"its group may write to {path}"
    return None


def _trusted_users() -> set[int]:
    trusted = {0, os.geteuid()}
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdecimal():
        trusted.add(int(os.environ["SUDO_UID"]))  # root by sudo, in the files of whoever called it
    return trusted


def _is_private_group(group: int, user: int) -> bool:
    """Whether a group has no other member than this user, as where every user has a group of their own."""
    import grp
    import pwd

    try:
        name = pwd.getpwuid(user).pw_name
        found = grp.getgrgid(group)
    except KeyError:
        return False
    return found.gr_name == name and set(found.gr_mem) <= {name}


def _user_name(user: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _is_safe(candidate: Path) -> bool:
    """Whether the user declared that everything below a folder is to be trusted."""
    declared = [Path(text) for text in os.environ.get("FLOWSTONE_SAFE_DIRECTORY", "").split(os.pathsep) if text]
    return any(candidate == safe or safe in candidate.parents for safe in declared)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(settings_schema(), indent=2) + "\n")
