"""From the bytes of git to text: reversible for storage, harmless for display."""

from __future__ import annotations

import re
import unicodedata

_RAW_BYTE = 0xF700
"""Undecodable byte 0x80..0xFF is stored as the private-use character U+F780..U+F7FF."""

_STORED_RAW = re.compile("[\uf780-\uf7ff]")
_UNDECODED = re.compile("[\udc80-\udcff]")
_SHOWN_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp", "Co", "Cs", "Cn"})
_JOINERS = frozenset("\u200c\u200d")


def to_text(raw: bytes) -> str:
    r"""Turn bytes of git (a path, a name) into valid Unicode text, without losing a byte.

    Git promises no encoding, Parquet and PostgreSQL want valid UTF-8. Valid UTF-8 stays as it is. Each byte
    that cannot be decoded becomes one private-use character (U+F780 to U+F7FF), so different paths stay
    different. Genuine characters of that small range are stored byte by byte in the same way, which keeps it
    reversible.

    Args:
        raw: any bytes.

    Returns:
        Text without surrogates; `from_text` gives the bytes back.

    Example:
        >>> to_text("Zoë".encode())
        'Zoë'
        >>> from_text(to_text(b"caf\xe9.txt"))
        b'caf\xe9.txt'
    """
    text = raw.decode("utf-8", "surrogateescape")
    text = _STORED_RAW.sub(lambda hit: "".join(chr(_RAW_BYTE + byte) for byte in hit[0].encode()), text)
    return _UNDECODED.sub(lambda hit: chr(ord(hit[0]) - 0xDC00 + _RAW_BYTE), text)


def from_text(text: str) -> bytes:
    r"""Return the bytes that `to_text` was given.

    Args:
        text: what `to_text` returned.

    Returns:
        The original bytes.

    Example:
        >>> from_text(to_text(b"\xff\xfe"))
        b'\xff\xfe'
    """
    restored = _STORED_RAW.sub(lambda hit: chr(ord(hit[0]) - _RAW_BYTE + 0xDC00), text)
    return restored.encode("utf-8", "surrogateescape")


def display(text: str, *, limit: int = 120) -> str:
    r"""Make stored text safe and honest to look at: one line, nothing invisible, not too long.

    Control characters, bidirectional overrides, zero-width and private-use characters are shown as escapes,
    so that a hostile file name can neither reorder the page nor imitate another. Long text loses its middle.
    This does not escape HTML.

    Args:
        text: what `to_text` returned.
        limit: longest result, in characters.

    Returns:
        One line of visible characters.

    Example:
        >>> display("a\u202eb\n")
        'a\\u202eb\\n'
        >>> display("x" * 300, limit=9)
        'xxxx…xxxx'
    """
    if len(text) > 4 * limit:  # no need to escape what is cut anyway
        text = text[: 2 * limit] + text[-2 * limit :]
    shown = "".join(_visible(character) for character in text)
    if len(shown) <= limit:
        return shown
    tail = (limit - 1) // 2
    return f"{shown[: limit - 1 - tail]}…{shown[len(shown) - tail :]}"


def _visible(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _SHOWN_CATEGORIES:
        return character
    code = ord(character)
    if _RAW_BYTE + 0x80 <= code <= _RAW_BYTE + 0xFF:
        return f"\\x{code - _RAW_BYTE:02x}"
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
