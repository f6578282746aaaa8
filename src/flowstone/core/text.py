"""Text that comes from user code made fit for a database, a terminal and a page."""

from __future__ import annotations

import re

ERROR_LIMIT = 64 * 1024
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_PASSWORD_IN_URL = re.compile(r"(?P<head>[a-zA-Z][\w+.-]*://[^\s:/@]*):[^\s@]+@")
_PASSWORD_IN_PAIR = re.compile(
    r"(?i)\b(?P<head>password|passwd|pwd|secret|token|api_?key)(?P<sep>\s*=\s*)(?:'[^']*'|\"[^\"]*\"|[^\s,;)&]+)"
)


def clean_text(text: str, *, limit: int = ERROR_LIMIT) -> str:
    """Return text without what breaks databases, terminals or trust, and not longer than `limit`.

    NUL and other control characters, lone surrogates and direction overrides are shown as escapes, ANSI
    sequences are dropped, passwords in URLs and `key=value` pairs are masked; the middle of a long text
    is left out, because a traceback says the most at its ends.

    Args:
        text: whatever user code raised or said.
        limit: longest result, in characters.

    Example:
        >>> clean_text("bad\\x00 \\x1b[31mred\\x1b[0m postgresql://me:hunter2@host/db")
        'bad\\\\x00 red postgresql://me:***@host/db'
    """
    if len(text) > limit:
        half = limit // 2
        left_out = len(text) - 2 * half
        # cut before the patterns run: a text of 100 MB must not be scanned
        text = f"{text[:half]}\n[... {left_out:,} characters left out ...]\n{text[-half:]}"
    text = _ANSI.sub("", text)
    text = _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
    return mask_secrets(text)


def mask_secrets(text: str) -> str:
    """Return text with passwords in URLs and `password=...` pairs replaced by `***`.

    Example:
        >>> mask_secrets("host=db password=hunter2 user=me")
        'host=db password=*** user=me'
    """
    text = _PASSWORD_IN_URL.sub(r"\g<head>:***@", text)
    return _PASSWORD_IN_PAIR.sub(r"\g<head>\g<sep>***", text)
