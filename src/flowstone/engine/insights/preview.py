"""A value as a bounded text: what a page shows of it, and what it refuses to load.

Nothing of the value is run for it: objects of unknown types are shown as their type, containers up to a depth and
a number of elements, and the whole up to a number of characters. Pickles are never loaded for a page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import PurePath
from typing import Any
from uuid import UUID

from flowstone.core.clean import mask_secrets
from flowstone.core.config_type import is_secret_name
from flowstone.core.output import PLAIN, StoredOutput, type_name

MAX_BYTES = 4 * 1024 * 1024
"""A larger value is not loaded for a preview."""
_MAX_CHARACTERS = 20_000
_MAX_ITEMS = 50
_MAX_DEPTH = 6
_MAX_TEXT = 2_000
_MAX_BITS = 10_000
_ROWS = 20
_SAFE = ("json", "text", "bytes", "numpy", "parquet")
_WRITTEN = (datetime, date, time, timedelta, Decimal, UUID, PurePath)


@dataclass(frozen=True, slots=True)
class ValuePreview:
    """What can be shown of a value.

    Args:
        version: the version.
        value_type: qualified name of its type.
        text: the value, as far as it is shown; empty when it is not.
        is_cut: whether that is not all of it.
        problem: why it is not shown; empty when it is.
    """

    version: int
    value_type: str
    text: str = ""
    is_cut: bool = False
    problem: str = ""


def refusal(stored: StoredOutput, *, in_this_process: bool) -> str:
    """Return why a value is not loaded for a preview; empty when it may be.

    Args:
        stored: where it lies.
        in_this_process: whether its IO manager keeps the object itself.

    Example:
        >>> refusal(StoredOutput("files", "1-1", "pickle", 10), in_this_process=False)
        'it is stored as pickle, which can run code when it is loaded: load it where you work'
    """
    if stored.serializer is None:
        return "" if in_this_process else "its IO manager does not say in which format it is stored"
    if stored.serializer not in _SAFE:
        return f"it is stored as {stored.serializer}, which can run code when it is loaded: load it where you work"
    if stored.size_bytes is None or stored.size_bytes > MAX_BYTES:
        return f"it is larger than {MAX_BYTES // 1024**2} MiB: load it where you work"
    return ""


def written(value: object) -> tuple[str, bool]:
    """Return a value as text of at most 20,000 characters, and whether something is left out.

    Example:
        >>> print(written({"rows": [1, 2], "by": {"eu": None}})[0])
        {
          'rows': [
            1,
            2,
          ],
          'by': {
            'eu': None,
          },
        }
    """
    lines: list[str] = []
    length, cut = 0, False
    for line in _lines(value, 0):
        if line is None:
            cut = True
            continue
        length += len(line) + 1
        if length > _MAX_CHARACTERS:
            return "\n".join(lines), True
        lines.append(line)
    return mask_secrets("\n".join(lines)), cut


def _lines(value: object, depth: int, before: str = "", after: str = "") -> Iterator[str | None]:
    """Yield lines; None where something is left out."""
    pad = "  " * depth
    if isinstance(value, Mapping) or type(value) in (list, tuple, set, frozenset):
        yield from _container(value, depth, before, after)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {one.name: getattr(value, one.name, None) for one in dataclasses.fields(value)}
        yield from _container(fields, depth, f"{before}{type(value).__name__}", after)
    elif (table := _table(value)) is not None:
        for line in table.splitlines():
            yield pad + line
        yield None
    else:
        text, cut = _scalar(value)
        yield f"{pad}{before}{text}{after}"
        if cut:
            yield None


def _container(value: Any, depth: int, before: str, after: str) -> Iterator[str | None]:
    pad = "  " * depth
    is_mapping = isinstance(value, Mapping)
    start, end = ("{", "}") if is_mapping or isinstance(value, set | frozenset) else ("[", "]")
    if type(value) is tuple:
        start, end = "(", ")"
    if not len(value):
        yield f"{pad}{before}{start}{end}{after}"
        return
    if depth >= _MAX_DEPTH:
        yield f"{pad}{before}{start}… {len(value):,} …{end}{after}"
        yield None
        return
    yield f"{pad}{before}{start}"
    items = value.items() if is_mapping else ((None, one) for one in value)
    for key, one in islice(items, _MAX_ITEMS):
        label = f"{_scalar(key)[0]}: " if is_mapping else ""
        shown = "***" if is_mapping and isinstance(key, str) and is_secret_name(key) and one else one
        yield from _lines(shown, depth + 1, label, ",")
    if len(value) > _MAX_ITEMS:
        yield f"{pad}  … {len(value) - _MAX_ITEMS:,} more"
        yield None
    yield f"{pad}{end}{after}"


def _scalar(value: object) -> tuple[str, bool]:
    if type(value) is int and value.bit_length() > _MAX_BITS:
        return f"<whole number of {value.bit_length():,} bits>", True
    if type(value) in (str, bytes):
        assert isinstance(value, str | bytes)
        cut = len(value) > _MAX_TEXT
        return repr(value[:_MAX_TEXT]) + (f"… {len(value) - _MAX_TEXT:,} more" if cut else ""), cut
    if type(value) in PLAIN:
        return repr(value), False
    if isinstance(value, _WRITTEN):
        return str(value)[:_MAX_TEXT], False
    return f"<{type_name(value)}>", True


def _table(value: object) -> str | None:
    """Return the first rows of a table or an array; None for what is none."""
    package = type(value).__module__.partition(".")[0]
    one: Any = value
    try:
        if package in ("pandas", "polars") and hasattr(one, "head"):
            return f"{type_name(value)} {getattr(one, 'shape', '')}\n{one.head(_ROWS)}"
        if package == "pyarrow" and hasattr(one, "slice"):
            return f"{type_name(value)} {getattr(one, 'shape', '')}\n{one.slice(0, _ROWS).to_string()}"
        if package == "numpy" and hasattr(one, "shape"):
            return f"{type_name(value)} {one.dtype} {one.shape}\n{one}"
    except Exception as error:  # noqa: BLE001 - a preview that cannot be made is none
        return f"<{type_name(value)}: {type(error).__name__}>"
    return None
