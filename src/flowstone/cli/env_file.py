"""Variables from a file `.env`, for development: what is set already wins."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from flowstone.config import distrust, read_settings_file
from flowstone.errors import ConfigurationError

NAME = ".env"
VARIABLE = "FLOWSTONE_ENV_FILE"
OFF = "none"
_MAX_BYTES = 1024 * 1024
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)", re.DOTALL)
_SPECIAL = re.compile(r"\\(.)|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def variables_of_env_file(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the file for this call that are not set yet.

    It is the file that `FLOWSTONE_ENV_FILE` names (`none` for no file), else `.env` beside the settings file, else
    in the working directory.

    Args:
        environment: what is set.

    Raises:
        ConfigurationError: the file cannot be read, or another user may write to it; names the line.
    """
    named = environment.get(VARIABLE, "")
    if named.strip().lower() == OFF:
        return {}
    path = Path(named) if named else (settings_directory() or Path.cwd()) / NAME
    if not named and not path.is_file():
        return {}
    reason = distrust(path) if path.exists() else None
    if reason is not None:
        raise ConfigurationError(
            f"{path} is not used: {reason}. Make it yours alone (chown and chmod go-w), set {VARIABLE}={OFF}, or, "
            f"when you trust everybody who may write there, FLOWSTONE_SAFE_DIRECTORY={path.parent}."
        )
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"{path} cannot be read: {why}.") from None
    if len(data) > _MAX_BYTES or "\0" in text:
        raise ConfigurationError(f"{path} cannot be read: it is no file of variables.")
    return {name: value for name, value in read(text, environment, str(path)).items() if name not in environment}


def settings_directory() -> Path | None:
    """Return the directory of the settings file, if there is one."""
    try:
        path, _ = read_settings_file(Path.cwd())
    except ConfigurationError:  # reported by commands that need settings
        return None
    return None if path is None else path.parent


def read(text: str, environment: Mapping[str, str] | None = None, where: str = NAME) -> dict[str, str]:
    r"""Return the variables of a text: lines `NAME=value`, with `export`, quotes, comments and references.

    A reference is `${NAME}` or `${NAME:-DEFAULT}`; within single quotes, and behind a backslash, it is text.

    Args:
        text: the content of the file.
        environment: what `${NAME}` means, beside the lines above.
        where: the file, for errors.

    Raises:
        ConfigurationError: a line is none of these; its text is not repeated, as it may hold a secret.

    Example:
        >>> read("# for me\nexport A=1\nB='two words # and more' # comment\nC=\"${A}\\n\"\nD = x # y\nE=\n")
        {'A': '1', 'B': 'two words # and more', 'C': '1\n', 'D': 'x', 'E': ''}
    """
    found: dict[str, str] = {}
    known = dict(os.environ if environment is None else environment)
    lines = re.split(r"\r\n|\r|\n", text)  # what else `splitlines` takes for an end may stand in a value
    at = 0
    while at < len(lines):
        first, line = at + 1, lines[at].lstrip()
        at += 1
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigurationError(f"{where}, line {first}: write NAME=value.")
        name, rest = match.groups()
        quote = rest.lstrip()[:1] if rest.lstrip()[:1] in ("'", '"') else ""
        if quote:  # may go on over several lines, as keys do
            rest = rest.lstrip()
            while (end := _closing(rest, quote)) is None and at < len(lines):
                rest, at = f"{rest}\n{lines[at]}", at + 1
            if end is None:
                raise ConfigurationError(f"{where}, line {first}: the quote of {name} does not end.")
            if (after := rest[end + 1 :].strip()) and not after.startswith("#"):
                raise ConfigurationError(
                    f"{where}, line {first}: after the quotes of {name} comes something else."
                )
            value = rest[1:end]
        else:
            value = re.split(r"\s#", rest, maxsplit=1)[0].strip()
        if quote != "'":
            value = _expanded(value, known, escapes=bool(quote))
        found[name] = value
        known.setdefault(name, value)
    return found


def _expanded(value: str, known: Mapping[str, str], *, escapes: bool) -> str:
    """Return a value with what `${NAME}` stands for, and in double quotes with what follows a backslash."""

    def text_of(found: re.Match[str]) -> str:
        escaped, name, default = found.groups()
        if escaped is not None:
            return _ESCAPES.get(escaped, escaped) if escapes else found[0]
        return known.get(name, "") or default or ""

    return _SPECIAL.sub(text_of, value)


def _closing(rest: str, quote: str) -> int | None:
    """Return where a value in quotes ends."""
    at = 1
    while at < len(rest):
        if quote == '"' and rest[at] == "\\":
            at += 2
            continue
        if rest[at] == quote:
            return at
        at += 1
    return None
