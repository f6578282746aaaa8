"""Any text as a path that is safe on every file system, and back.

The escaped form uses lowercase letters, digits and `- _ . + % ~ @` only, so that file systems that fold case,
normalise Unicode, strip trailing dots or reserve device names all keep distinct texts distinct.
"""

from __future__ import annotations

import re

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_UPPER = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_RESERVED = frozenset(
    {"con", "prn", "aux", "nul", "clock$", "conin$", "conout$"}
    | {f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789"}
)
_EMPTY = "@"
_JOINT = "~/~"
# File systems allow 255 bytes; encrypted ones 143. The joint marks and an extension have to fit too.
_MAX_SEGMENT = 120
_TOKEN = re.compile(r"[a-z0-9\-_.]|\+[a-z]|(?:%[0-9a-f]{2})+")


def escape(text: str) -> str:
    """Return `text` as a relative path: one segment, or several joined by `~/~` when it is long.

    Distinct texts give paths that differ even on a file system that ignores case or normalises Unicode.
    Capital letters become `+` and the small letter, other characters `%xx` for each byte of their UTF-8.

    Args:
        text: anything, including the empty text, NUL, slashes and lone surrogates.

    Example:
        >>> escape("2024-01-01"), escape("../Etc"), escape("con"), escape("")
        ('2024-01-01', '%2e.%2f+etc', '%63on', '@')
    """
    if not text:
        return _EMPTY
    pieces = [_escape_character(character) for character in text]
    if text.partition(".")[0] in _RESERVED or text[0] == ".":
        pieces[0] = _percent(text[0])
    if text[-1] == ".":
        pieces[-1] = _percent(".")
    escaped = "".join(pieces)
    return _JOINT.join(escaped[start : start + _MAX_SEGMENT] for start in range(0, len(escaped), _MAX_SEGMENT))


def unescape(path: str) -> str:
    """Return the text that `escape` turned into `path`.

    Args:
        path: an escaped path.

    Raises:
        ValueError: `escape` never returns this path.

    Example:
        >>> unescape(escape("a/B|ü"))
        'a/B|ü'
    """
    if path == _EMPTY:
        return ""
    try:
        text = _decode(path.replace(_JOINT, ""))
    except UnicodeDecodeError:
        text = ""
    # Only the form that `escape` chooses is valid, so that no two paths stand for one text.
    if not text or escape(text) != path:
        raise ValueError(f"{path!r} is not an escaped path")
    return text


def split_location(location: str) -> list[str]:
    """Split a path of several escaped texts into the escaped texts.

    Example:
        >>> split_location("a/b~/~c/d")
        ['a', 'b~/~c', 'd']
    """
    return re.split(r"(?<!~)/", location)


def file_name(version: str, extension: str) -> str:
    """Return the path of a version within its folder; the first dot starts the extension.

    Example:
        >>> file_name("step.7-1", ".json")
        'step%2e7-1.json'
    """
    return escape(version).replace(".", "%2e") + extension


def version_of(name: str) -> str:
    """Return the version whose `file_name` is `name`.

    Raises:
        ValueError: no version has this file name.

    Example:
        >>> version_of("step%2e7-1.json")
        'step.7-1'
    """
    stem, dot, extension = name.partition(".")
    try:
        version = "" if stem == _EMPTY else _decode(stem.replace(_JOINT, ""))
    except UnicodeDecodeError:
        version = ""
    if file_name(version, dot + extension) != name or not re.fullmatch(r"(\.[a-z0-9]+)*", dot + extension):
        raise ValueError(f"{name!r} is not the file name of a version")
    return version


def _percent(character: str) -> str:
    return "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))


def _escape_character(character: str) -> str:
    if character in _PLAIN:
        return character
    if character in _UPPER:
        return "+" + character.lower()
    return _percent(character)


def _decode(escaped: str) -> str:
    """Decode what is understood; callers compare the result with what it would be escaped to."""
    return "".join(_unescape_token(token) for token in _TOKEN.findall(escaped))


def _unescape_token(token: str) -> str:
    if token[0] == "+":
        return token[1].upper()
    if token[0] == "%":
        return bytes.fromhex(token.replace("%", "")).decode("utf-8", "surrogatepass")
    return token
