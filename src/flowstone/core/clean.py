"""What user code records, made fit for a database, a terminal and a page.

First text (`clean_text`, `error_line`), then secrets in it by spelling (`mask_secrets`) and by value
(`hide_values`), then metadata (`clean_metadata`). All of it is deterministic and never raises because of the text
that it is given.
"""

from __future__ import annotations

import base64
import json
import math
import re
import threading
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any
from urllib.parse import quote
from uuid import UUID

from flowstone.core.output import JsonValue, type_name
from flowstone.errors import SerializationError

ERROR_LIMIT = 64 * 1024
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def clean_text(text: str, *, limit: int = ERROR_LIMIT) -> str:
    """Return text without what breaks databases, terminals or trust, and not longer than `limit`.

    NUL and other control characters, lone surrogates and direction overrides are shown as escapes, ANSI
    sequences are dropped, secrets are masked (see `mask_secrets`); the middle of a long text is left out, because
    a traceback says the most at its ends.

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
        >>> error_line("Traceback (most recent call last):\\n  File ...\\nhttpx.HTTPError: 404\\nSee https://...")
        'httpx.HTTPError: 404'
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


# ---- Secrets: by the name beside them, by their form, and by value.
# Repeats are bounded: these patterns run over hostile text and must stay linear.

_MASK = "***"
_MAX_MASKED = 1024 * 1024
_MAX_LINES = 200
_NAME_ENDING = (
    r"passwords?|passwd|passphrase|pwd|secrets?|token|credentials?|authorization|cookie|"
    r"(?:api|access|secret|private|signing|encryption|master|session|auth|account|shared|ssh|deploy|webhook|license|"
    r"licence|hmac|fernet|jwt|aes|rsa|gpg|pgp|crypt|cipher|subscription|stripe|sendgrid|openai|anthropic)"
    r"[_ -]?(?:access[_ -]?)?key|"
    # a variable in capitals, but for keys of tables, caches and the like
    r"(?-i:(?<![A-Z0-9])(?!(?:PARTITION|PRIMARY|FOREIGN|SORT|RUN|CACHE|PUBLIC|OBJECT|MESSAGE|ROUTING|UNIQUE|INDEX|"
    r"TABLE|ROW|DEDUP|IDEMPOTENCY|GROUP|JOIN|HASH|BUSINESS|NATURAL|SURROGATE|S3|DICT|MAP|CONFIG|DEFAULT|ANY|NO|THE)_)"
    r"[A-Z][A-Z0-9]{1,30}_KEY)|"
    r"(?:db|user|smtp|imap|ftp|redis|mysql|pg|postgres|mongo|admin|root|ldap|proxy|login|sql|http|ssh|mail)[_-]?pass|"
    r"access[_ -]?key[_ -]?id|(?<![a-zA-Z0-9])pw|(?-i:(?<=[a-z])Pw)|x-amz-signature|client_?key_?data"
)
_NAME_REST = (
    r"(?:\d{1,3}|[_-]?(?:value|text|plain|raw|old|new|confirm|confirmation|repeat|hash|b64|base64|base|encoded))?"
)
_KEY = re.compile(
    rf"(?P<name>{_NAME_ENDING}){_NAME_REST}(?P<close>[\])]{{0,2}}(?:\\{{0,4}}[\"'])?\]?)"
    # a pair of any kind; {"name": "X_TOKEN", "value": ...}; an element of a tuple or list; an option; XML
    r"(?P<sep>\s{0,8}(?:=>|:=|={1,2}|:(?!:|//)|%3[AaDd])[ \t]{0,8}"
    r"|[ \t]{0,8},?\s{0,40}\\{0,4}[\"']?value\\{0,4}[\"']?[ \t]{0,3}[:=][ \t]{0,3}"
    r"|,\s{0,8}(?=[bBuU]?\\{0,4}[\"'])|(?:\s[^<>\n]{0,200})?>(?=[^<\s])|[ \t]{1,8}(?=[^\s-]))",
    re.IGNORECASE | re.ASCII,
)
_QUOTED = re.compile(r"[bBuUrRfF]{0,2}(?P<quote>\"{3}|'{3}|\\{0,4}[\"'])")
_CLOSED = {
    quote: re.compile(rf"(?:[^{quote}\\]|\\.|{quote}{quote}){{0,20000}}+{quote}", re.DOTALL)
    for quote in ("'", '"')
}
_BARE = re.compile(r"(?:[^\s,;)&\"'\]}<>]|[,;)&\"'\]}<>]{1,8}(?=[^\s,;)&\"'\]}<>])(?!\S?[\w.\[\]-]{1,64}[=:]))+")
_BRACKETED = re.compile(r"[\[{(][^\]})\n]{0,2000}[\]})]")
_REST_OF_LINE = re.compile(r"[^\r\n]*[^\s]")
_REST_OF_HEADER = re.compile(r"[^\r\n\"'\\]*[^\s\"'\\]")
_BLOCK = re.compile(r"(?:[|>][+-]?\d?)?[ \t]*\r?\n")
_HARMLESS = re.compile(
    r"(?:none|null|nil|true|false|undefined|\*+|\[?(?:redacted|hidden|masked|filtered)\]?|<[^<>\n]{0,60}>|"
    r"\$\{?\w{1,64}\}?|\$\(\w{1,64}\)|\{\w{0,64}\}|%\(\w{1,64}\)s|%s|"
    r"os\.(?:environ|getenv)\b[^\n]{0,200})(?![^\s,;)&\"'\]}])",
    re.IGNORECASE,
)
_PROSE = frozenset(
    (  # noqa: SIM905 - a line each
        "to is was are or and for in on with from of by as at the a an that must may can cannot not it"
    ).split()
)
_NOT_A_NAME = frozenset({"unexpected", "invalid", "unknown", "illegal", "expected", "bad", "missing", "next"})
_BY_FORM = (
    # user information of a URL; what follows a host and a colon is a port when it is a number that ends there
    (
        re.compile(
            r"(?P<head>[a-zA-Z][\w+.-]{0,40}://[^\s:/@]{0,500}):(?!\d{1,5}(?:[/?#\"'<>),;\]}\s]|\.?(?:\s|$)))"
            r"(?:(?!://)[^\s]){1,1000}@"
        ),
        r"\g<head>:***@",
    ),
    # without a host behind it: what is no port is a secret
    (
        re.compile(
            r"(?P<head>://[^\s:/@\[?#\"']{1,500}):(?!\d{1,5}(?:[/?#\"'<>),;\]}\s]|\.?(?:\s|$))|port\b|\*\*\*)"
            r"[^\s/?#@\"'\\{}<>$%*]{1,1000}(?=[/?#\"'\s]|$)"
        ),
        r"\g<head>:***",
    ),
    (re.compile(r"(?P<head>://)[A-Za-z0-9_\-.~%]{20,500}@"), r"\g<head>***@"),
    (re.compile(r"(?i)(?P<head>%3A%2F%2F[^\s%&]{0,500}%3A)[^\s&]{1,200}?(?=%40)"), r"\g<head>***"),
    (
        re.compile(r"(?i)\b(?P<head>(?:bearer|basic)\s{1,4})(?=[^\s\"']{0,500}[\d=])[A-Za-z0-9\-._~+/]{6,5000}=*"),
        r"\g<head>***",
    ),
    (
        re.compile(
            r"(?i)\b(?P<head>bearer\s{1,4})(?=[A-Za-z0-9.~+/]{0,500}[-_])(?![\w-]{0,40}[=:])"
            r"[A-Za-z0-9\-._~+/]{12,5000}"
        ),
        r"\g<head>***",
    ),
    # a header of Django REST framework, InfluxDB and others; words of prose have no digits
    (
        re.compile(
            r"(?i)\b(?P<head>token\s{1,4})(?=[a-z_+/=-]{0,500}\d)(?=[\d_+/=-]{0,500}[a-z])[a-z0-9_+/=-]{20,5000}"
        ),
        r"\g<head>***",
    ),
    (
        re.compile(r"(?P<head>[?&](?:sig|signature|x-amz-signature)=)[^\s&\"']{8,1000}", re.IGNORECASE),
        r"\g<head>***",
    ),
    (re.compile(r"(?P<head>\s(?:-u|--user)[ =][\"']?[^\s:\"']{1,100}:)[^\s\"']{1,500}"), r"\g<head>***"),
    (re.compile(r"(?i)(?P<head>\bidentified by |\bpassword )'[^']{1,500}'"), r"\g<head>'***'"),
    (
        re.compile(
            r"(?P<head>-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)[\s\S]*?"
            r"(?P<tail>-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)"
        ),
        r"\g<head>***\g<tail>",
    ),
    # tokens that say themselves what they are
    (
        re.compile(
            r"\b(?:gh[opsur]_[A-Za-z0-9]{20,255}|github_pat_\w{20,255}|glpat-[\w-]{16,255}|"
            r"xox[abeoprs]-[\w-]{10,255}|(?:sk|rk)_(?:live|test)_\w{10,255}|npm_[A-Za-z0-9]{30,255}|pypi-[\w-]{50,500}|"
            r"(?:AKIA|ASIA)[A-Z2-7]{16}(?![A-Za-z0-9])|AIza[\w-]{35}(?![\w-])|"
            r"eyJ[\w-]{8,4000}\.eyJ[\w-]{8,4000}\.[\w-]{8,1000})"
        ),
        _MASK,
    ),
)
_SIGNS = (  # noqa: SIM905 - without one of these no pattern matches, and most lines that are logged have none
    "pass pw secret token credential authorization cookie key :// %3a bearer basic sig= signature -u identified "
    "-----begin gho_ ghp_ ghs_ ghu_ ghr_ github_pat_ glpat- xox sk_ rk_ npm_ pypi- eyj akia asia aiza"
).split()


def mask_secrets(text: str) -> str:
    """Return text with secrets replaced by `***`.

    Masked are values beside a name that ends in a word for a secret, in any spelling (`PGPASSWORD=`,
    `"accessToken":`, `--db-password x`, `Authorization: ...`, `<secret>..</secret>`), user information in URLs,
    keys and tokens that are known by their form, and, wherever they stand, the values given to `hide_values`.
    Names that only begin so
    (`token_count=5`, `password_file=/run/x`) and prose ("password reset") are left alone. Of a text longer than a
    mebibyte the middle is left out.

    Example:
        >>> mask_secrets("host=db password=hunter2 user=me PGPASSWORD=x token_count=5")
        'host=db password=*** user=me PGPASSWORD=*** token_count=5'
    """
    text = _mask_values(_cut(text, _MAX_MASKED))
    lower = text.lower()
    if not any(sign in lower for sign in _SIGNS):
        return text
    for pattern, replacement in _BY_FORM:
        text = pattern.sub(replacement, text)
    return _mask_pairs(text)


def _mask_pairs(text: str) -> str:
    """Mask what stands beside the name of a secret."""
    done: list[str] = []
    position = 0
    for key in _KEY.finditer(text):
        if key.start() < position:
            continue  # within a value that is masked already
        found = _value_of(text, key)
        if found is not None:
            start, end = found
            done += (text[position:start], _MASK)
            position = end
    done.append(text[position:])
    return "".join(done)


def _value_of(text: str, key: re.Match[str]) -> tuple[int, int] | None:
    """Return the place of the value beside the name of a secret; None when there is nothing to mask."""
    separator, start = key["sep"], key.end()
    before = _name_before(text, key.start("name"))
    if separator.isspace() and not _is_option(text, start, before):
        return None
    if separator.endswith(">") and separator != "=>" and "<" not in before:
        return None
    kind = separator.strip()
    quoted = _QUOTED.match(text, start)
    if quoted is not None:
        return _quoted_value(text, quoted, keep_quotes=kind not in ("=", "==", ":="))
    name = key["name"].lower()
    if (
        _HARMLESS.match(text, start)
        or _is_directory(text, key, before, name, start)
        or _is_message(text, key, before)
    ):
        return None
    if kind == ":":
        if name != "cookie" and not key["close"] and _begins_line(text, key, before):
            block = _block_of_lines(text, start, key.start() - len(before))
            if block is not None:
                return block if block[0] < block[1] else None
            found = _REST_OF_LINE.match(text, start)
        else:
            found = (_REST_OF_HEADER if name in ("authorization", "cookie") else _BARE).match(text, start)
    elif name == "authorization":
        found = _REST_OF_HEADER.match(text, start)
    else:
        found = _BRACKETED.match(text, start) or _BARE.match(text, start)
    if found is None or found.end() == start:
        return None
    end = start + len(found[0].rstrip())
    if separator.startswith("%3") and (escaped := text.find("%26", start, end)) >= 0:
        end = escaped
    return start, end


def _name_before(text: str, start: int) -> str:
    """Return the beginning of a name: `--db-` of `--db-password`."""
    first = start
    while first > max(0, start - 64) and (text[first - 1].isalnum() or text[first - 1] in "_-.<:$[("):
        first -= 1
    return text[first:start]


def _is_option(text: str, start: int, before: str) -> bool:
    """Whether a name is an option of a command line with its value after a space; not `--token NAME` of a help."""
    if not before.startswith("--"):
        return False
    word = text[start : start + 20].split(maxsplit=1)[0].strip(".,;:)]'\"")
    return word.lower() not in _PROSE and not (word.isalpha() and word.isupper())


def _is_directory(text: str, key: re.Match[str], before: str, name: str, start: int) -> bool:
    """Whether this is the working directory, which has the name of a password."""
    return name == "pwd" and before.upper() in ("", "OLD") and text[start : start + 1] in ("/", "~")


def _is_message(text: str, key: re.Match[str], before: str) -> bool:
    """Whether this is a message such as `unexpected token: }`."""
    if before or key["close"] or key["sep"].strip() != ":":
        return False
    words = text[max(0, key.start() - 24) : key.start()].split()
    return bool(words) and words[-1].lower().strip("'\"(") in _NOT_A_NAME


def _block_of_lines(text: str, start: int, key: int) -> tuple[int, int] | None:
    """Return the place of the lines below a name of YAML that are indented further than the name.

    It is empty when nothing is there to mask; None when no lines follow the name.
    """
    begin = _BLOCK.match(text, start)
    if begin is None:
        return None
    indent = key - (text.rfind("\n", 0, key) + 1)
    first = end = stop = begin.end()
    for _ in range(_MAX_LINES):
        following = text.find("\n", end)
        following = len(text) if following < 0 else following
        line = text[end:following]
        if line.strip():
            if len(line) - len(line.lstrip(" \t")) <= indent:
                break
            stop = following
        end = following + 1
        if end > len(text):
            break
    inner = text[first:stop]
    if inner.strip() in ("", _MASK):
        return first, first
    return first + len(inner) - len(inner.lstrip()), first + len(inner.rstrip())


def _begins_line(text: str, key: re.Match[str], before: str) -> bool:
    """Whether a name begins its line, as in YAML: its value may have spaces then."""
    start = key.start() - len(before)
    line = text[max(0, text.rfind("\n", 0, start) + 1, start - 80) : start]
    return not line.strip(" \t-") and "\n" not in key["sep"]


def _quoted_value(text: str, quoted: re.Match[str], *, keep_quotes: bool) -> tuple[int, int] | None:
    mark, start = quoted["quote"], quoted.end()
    simple = _CLOSED.get(mark)
    if simple is not None:
        closed = simple.match(text, start)
        end = closed.end() - 1 if closed else -1
    else:
        end = text.find(mark, start, start + 20_000)
    if end < 0:  # cut off: to the end of the line
        line_end = text.find("\n", start)
        return start, len(text) if line_end < 0 else line_end
    inner = text[start:end]
    if not inner.strip("* ") or inner.lower() in ("none", "null"):
        return None
    if inner.startswith("***") and inner.endswith("***"):
        return None
    return (start, end) if keep_quotes else (quoted.start(), end + len(mark))


_hidden: tuple[tuple[str, re.Pattern[str] | None], ...] = ()
_hidden_lock = threading.Lock()
_MAX_HIDDEN = 2_000
_MIN_HIDDEN = 4
_MAX_WORD = 8
# what stands in ordinary messages is no secret; masking it would make them unreadable
_ORDINARY = frozenset(
    (  # noqa: SIM905 - a line each
        "postgres postgresql password passwd secret token flowstone oban admin root user users test tests "
        "true false none null default local localhost host public main name data database server value string"
    ).split()
)


def hide_values(values: Iterable[str]) -> None:
    """Have values masked wherever they stand, in this process, from now on: passwords of databases, for example.

    Values shorter than four characters, numbers of less than six digits and words of ordinary messages
    (`postgres`, `secret`, `test`) are not taken, as they would mask everything; values shorter than eight are
    masked as whole words.

    Example:
        >>> hide_values(["tr0ub4dor-example"])
        >>> mask_secrets("it said tr0ub4dor-example")
        'it said ***'
    """
    global _hidden  # noqa: PLW0603 - of the process, as its environment is
    found: dict[str, re.Pattern[str] | None] = {}
    for value in values:
        for part in (value, *value.splitlines()):
            text = part.strip()
            if len(text) < _MIN_HIDDEN or text.lower() in _ORDINARY or not text.strip("*"):
                continue
            if (text.isdigit() and len(text) < 6) or (part is not value and len(text) < 16) or "-----" in text[:5]:
                continue
            for form in _forms(text):
                found[form] = re.compile(rf"(?<!\w){re.escape(form)}(?!\w)") if len(form) < _MAX_WORD else None
    with _hidden_lock:
        # a new tuple, because others read it meanwhile; the longest first, as one value may contain another
        merged = dict(_hidden) | found
        ordered = sorted(merged, key=len, reverse=True)[:_MAX_HIDDEN]
        _hidden = tuple([(value, merged[value]) for value in ordered])


def _forms(value: str) -> set[str]:
    """Return how a value may stand in a text: as it is, in a URL, in JSON, in a `repr`, in Base64."""
    forms = {value, quote(value, safe=""), quote(value), json.dumps(value)[1:-1], repr(value)[1:-1]}
    if len(value) >= _MAX_WORD:
        forms.add(base64.b64encode(value.encode(errors="replace")).decode())
    return forms


def _mask_values(text: str) -> str:
    for value, word in _hidden:
        if value in text:
            text = text.replace(value, _MASK) if word is None else word.sub(_MASK, text)
    return text


@lru_cache(maxsize=1000)  # every app that is made reads the environment
def is_secret_name(name: str) -> bool:
    """Return whether a name, of a setting or of an environment variable, is that of a secret.

    Example:
        >>> [is_secret_name(name) for name in ("PGPASSWORD", "apiKey", "TOKEN_COUNT", "PWD", "DB_PASSWORD_FILE")]
        [True, True, False, False, False]
    """
    return name not in ("PWD", "OLDPWD") and _ONLY_NAME.search(name) is not None


_ONLY_NAME = re.compile(rf"(?:{_NAME_ENDING}){_NAME_REST}\Z", re.IGNORECASE | re.ASCII)


def masked_document(value: object) -> object:
    """Return a JSON document with the secrets in its texts masked, and texts under the names of secrets as well.

    Example:
        >>> masked_document({"db": {"password": "x", "url": "postgresql://me:x@db"}, "rows": [1]})
        {'db': {'password': '***', 'url': 'postgresql://me:***@db'}, 'rows': [1]}
    """
    if isinstance(value, str):
        return mask_secrets(value)
    if isinstance(value, list | tuple):
        return [masked_document(one) for one in value]
    if isinstance(value, dict):
        return {
            (mask_secrets(key) if isinstance(key, str) else key): (
                _MASK
                if isinstance(one, str) and one and isinstance(key, str) and is_secret_name(key)
                else masked_document(one)
            )
            for key, one in value.items()
        }
    return value


MAX_CHARACTERS = 64 * 1024
MAX_OF_OUTPUTS = 1024 * 1024
"""Characters of JSON that the metadata of a stored output may take."""

_MAX_VALUES = 10_000  # in so many characters
_DEEPEST = 20
_MAX_NUMBER_BITS = 1024  # what a double can hold, so that every reader of the JSON can hold it too
_REMEDY = (
    "Give text, numbers, dates, lists and dicts with text as keys: str(...), list(...), a number of it, or "
    "dataclasses.asdict(...)."
)


def clean_metadata(
    facts: Mapping[str, object], what: str = "metadata", *, max_characters: int = MAX_CHARACTERS
) -> dict[str, JsonValue]:
    """Return facts as plain JSON types, or say why they cannot be recorded.

    Text is cleaned as error texts are; NaN and the infinities, which JSON does not know, become the texts
    "NaN", "Infinity" and "-Infinity"; numbers, bools and arrays of other libraries become `int`, `float`,
    `bool` and lists; dates and times their ISO text, a timedelta its seconds, a Decimal, a path and a UUID their
    text, an enum its value, a set a sorted list, a tuple a list.

    Args:
        facts: names and values.
        what: what they are called in errors.
        max_characters: how long they may be as JSON.

    Raises:
        SerializationError: something cannot be recorded, or there is too much of it; names the place, the type and
            the remedy.

    Example:
        >>> clean_metadata({"rows": 3, "share": float("nan"), "day": date(2024, 1, 5), "names": {"b", "a"}})
        {'rows': 3, 'share': 'NaN', 'day': '2024-01-05', 'names': ['a', 'b']}
    """
    if not isinstance(facts, Mapping):
        raise _refusal("must be a dict of names to values", what, facts, "Fill the dict, do not replace it.")
    cleaned = _Cleaner(max_characters).mapping(facts, what, 0)
    size = len(json.dumps(cleaned, ensure_ascii=False))
    if size > max_characters:
        raise _too_much(f"takes {size:,} characters as JSON; {max_characters:,} is the most", what, facts)
    return cleaned


def clean_value(value: object, what: str, *, max_characters: int = MAX_CHARACTERS) -> JsonValue:
    """Return one value as `clean_metadata` does; see there.

    Example:
        >>> clean_value([Decimal("1.50")], "data")
        ['1.50']
    """
    cleaned = clean_metadata({"value": value}, what, max_characters=max_characters + len('{"value": }'))
    return cleaned["value"]


class _Cleaner:
    """Walks a document and stops as soon as there is too much of it: it may be a table by mistake."""

    def __init__(self, max_characters: int) -> None:
        self._values = 0
        self._characters = 0
        self._max_characters = max_characters
        self._max_values = max_characters * _MAX_VALUES // MAX_CHARACTERS

    def mapping(self, facts: Mapping[Any, object], place: str, depth: int) -> dict[str, JsonValue]:
        cleaned: dict[str, JsonValue] = {}
        try:
            items = list(facts.items()) if len(facts) <= self._max_values else None
        except Exception as error:
            raise _refusal(f"cannot be read ({type(error).__name__})", place, facts, _REMEDY) from error
        if items is None:
            raise _too_much(f"holds more than {self._max_values:,} values", place, facts)
        for name, value in items:
            if not isinstance(name, str):
                raise _refusal(f"has the key {_short(name)}: keys must be text", place, name, "Write str(key).")
            key = str.__str__(name)  # a subclass may do anything when it is looked at
            if len(key) >= 40 or not key.isidentifier():
                key = self._text(key, place)
            cleaned[key] = self._value(value, f"{place}[{_short(key)}]", depth + 1)
        return cleaned

    def _value(self, value: object, place: str, depth: int) -> JsonValue:
        self._values += 1
        if self._values > self._max_values:
            raise _too_much(f"holds more than {self._max_values:,} values", place, value)
        if depth > _DEEPEST:
            raise _too_much(f"is nested more than {_DEEPEST} deep (or holds itself)", place, value)
        kind = type(value)
        if value is None or kind is bool or kind is int:
            return _integer(value, place) if kind is int else value  # type: ignore[arg-type, return-value]
        if kind is str:
            return self._text(value, place)  # type: ignore[arg-type]
        try:
            return self._other(value, place, depth)
        except SerializationError:
            raise
        except Exception as error:
            raise _refusal(f"cannot be read ({type(error).__name__})", place, value, _REMEDY) from error

    def _other(self, value: object, place: str, depth: int) -> JsonValue:
        if isinstance(value, Enum):
            return self._value(value.value, place, depth + 1)
        if isinstance(value, str):
            return self._text(value, place)
        if isinstance(value, Integral):
            return _integer(int(value), place)
        if isinstance(value, Real):
            return _number(float(value))
        if isinstance(value, Decimal | PurePath | UUID):
            return self._text(str(value), place)
        if isinstance(value, date | time):  # a datetime is a date
            return self._text(value.isoformat(), place)
        if isinstance(value, timedelta):
            return _number(value.total_seconds())
        if isinstance(value, Mapping):
            return self.mapping(value, place, depth)
        if type(value).__name__ == "NAType":  # of pandas
            return None
        if type(value).__module__ == "numpy":
            return self._numpy(value, place, depth)
        if isinstance(value, Set):
            listed = [self._value(one, f"{place}[...]", depth + 1) for one in value]
            return sorted(listed, key=lambda one: (type(one).__name__, one if isinstance(one, str) else repr(one)))
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
            return [self._value(one, f"{place}[{index}]", depth + 1) for index, one in enumerate(value)]
        raise _refusal("cannot be recorded", place, value, _REMEDY)

    def _numpy(self, value: Any, place: str, depth: int) -> JsonValue:
        """Return a bool, a date or an array of NumPy; its numbers are numbers already."""
        if getattr(value, "size", 0) > self._max_values:
            raise _too_much(f"holds more than {self._max_values:,} values", place, value)
        kind = getattr(getattr(value, "dtype", None), "kind", "")
        if kind in "mM" and kind:
            # nanoseconds have no date of the standard library: their text is exact
            plain = value.astype(str).tolist()
        elif kind in "biufSUO" and kind and kind != "S":
            plain = value.tolist()
        else:
            raise _refusal("cannot be recorded", place, value, _REMEDY)
        if type(plain).__module__ == "numpy":
            raise _refusal("cannot be recorded", place, value, _REMEDY)
        return self._value(plain, place, depth)

    def _text(self, text: str, place: str) -> str:
        text = str.__str__(text)
        self._characters += len(text)
        if self._characters > self._max_characters:
            raise _too_much(f"holds more than {self._max_characters:,} characters of text", place, text)
        # escapes are longer than what they stand for; the limit must not cut here, as it has its own error
        return clean_text(text, limit=10 * self._max_characters)


def _integer(value: int, place: str) -> int:
    if value.bit_length() > _MAX_NUMBER_BITS:
        problem = f"is a whole number of more than {_MAX_NUMBER_BITS} bits"
        raise _refusal(problem, place, value, "Give it as text.")
    return value


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _refusal(problem: str, place: str, value: object, remedy: str) -> SerializationError:
    return SerializationError(f"A value {problem}", path=place, type_name=type_name(value), remedy=remedy)


def _too_much(why: str, place: str, value: object) -> SerializationError:
    remedy = "Metadata is for small facts, such as a number of rows: store data as an asset."
    return _refusal(why, place, value, remedy)


def _short(key: object) -> str:
    shown = repr(key[:40]) if isinstance(key, str) else type(key).__name__
    return clean_text(shown, limit=60)
