"""Text that comes from user code made fit for a database, a terminal and a page."""

from __future__ import annotations

import re

ERROR_LIMIT = 64 * 1024
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
# repeats are bounded: these patterns run over hostile text and must stay linear
_PASSWORD_IN_URL = re.compile(r"(?P<head>[a-zA-Z][\w+.-]{0,40}://[^\s:/@]{0,500}):[^\s@]{1,1000}@")
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
    # cut before the patterns run, as a text of 100 MB must not be scanned; and after, as escapes are longer
    text = _ANSI.sub("", _cut(text, limit))
    text = _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
    return _cut(mask_secrets(text), limit)


def plain_text(value: object) -> str:
    """Return anything as text: text as it is, None as none, other objects as they say themselves.

    Example:
        >>> plain_text(ValueError("no rows")), plain_text(None)
        ('no rows', '')
    """
    if type(value) is str:
        return value
    if value is None:
        return ""
    try:
        return str.__str__(value if isinstance(value, str) else str(value))
    except BaseException as broken:  # noqa: BLE001 - whatever an object does that is asked for its text
        return f"<{type(value).__qualname__}, whose text raised {type(broken).__qualname__}>"


_SEPARATORS = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_GROUP = re.compile(r"^\s*\+ Exception Group Traceback")
_GROUP_MARGIN = re.compile(r"^\s*[|+] ?")


def error_line(text: str | None) -> str:
    """Return the line of a recorded error that says the most: the type and the first line of its message.

    The last line of a traceback is often a hint, a link or a caret.

    Example:
        >>> error_line("Traceback (most recent call last):\\n  File ...\\nhttpx.HTTPError: 404 for /a\\nSee https://...")
        'httpx.HTTPError: 404 for /a'
        >>> error_line("Fatal: the contract ended")
        'Fatal: the contract ended'
    """
    lines = (text or "").strip("\n").splitlines()
    starts = [at for at, line in enumerate(lines) if line.strip(" |") in _SEPARATORS]
    # a message may hold such a line itself: what follows it counts only when it is a traceback
    for at in reversed(starts):
        rest = [line for line in lines[at + 1 :] if line.strip(" |")]
        if rest and "Traceback (most recent call last):" in rest[0]:
            lines = rest
            break
    if lines and _GROUP.match(lines[0]):
        lines = [_GROUP_MARGIN.sub("", line) for line in lines]
    if lines and "Traceback (most recent call last):" in lines[0]:
        inner = next((at for at, line in enumerate(lines[1:], 1) if line and not line[0].isspace()), None)
        lines = lines[inner:] if inner is not None else lines
    found = [" ".join(line.split()) for line in lines if line.strip()]
    if len(found) > 1 and found[0].endswith(":") and " " not in found[0]:
        return f"{found[0]} {found[1]}"  # the message begins with an empty line
    return found[0] if found else ""


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    gap = f"\n[... {len(text) - limit:,} and some characters left out ...]\n"
    half = (limit - len(gap)) // 2
    return f"{text[:half]}{gap}{text[-half:]}" if half > 0 else text[:limit]


def mask_secrets(text: str) -> str:
    """Return text with passwords in URLs and `password=...` pairs replaced by `***`.

    Example:
        >>> mask_secrets("host=db password=hunter2 user=me")
        'host=db password=*** user=me'
    """
    text = _PASSWORD_IN_URL.sub(r"\g<head>:***@", text)
    return _PASSWORD_IN_PAIR.sub(r"\g<head>\g<sep>***", text)
