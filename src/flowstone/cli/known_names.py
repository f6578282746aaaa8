"""Names for the completion of a shell: written by commands that import the app, read without it.

They lie in the storage directory when it is there, else in the user's cache, as a file that the user alone may
read and write. Names that a shell could take for more than a word are never offered.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

KINDS = ("assets", "selection", "schedules", "sensors", "queues", "executors", "partitions", "runs", "filter")
"""What an argument or option can be completed with; `selection` and `filter` are made of the others."""
EXECUTORS_GROUP = "flowstone.executors"
_FILE = "completion.json"
_MAX_NAMES = 5_000
_MAX_BYTES = 2_000_000
_MAX_RUNS = 100
# zsh puts what it is given through `eval`: nothing but characters that no shell reads as anything else
_SAFE = re.compile(r"(?!-)[\w.:/@+,=%-]{1,200}")


def offers(kind: str) -> Callable[[str], list[str]]:
    """Return what typer calls to complete an argument or option.

    Args:
        kind: one of `KINDS`.
    """

    def complete(incomplete: str) -> list[str]:
        return matching(kind, incomplete)

    complete.kind = kind  # type: ignore[attr-defined] # what the reference of all commands names
    return complete


def matching(kind: str, incomplete: str, known: Mapping[str, Iterable[str]] | None = None) -> list[str]:
    """Return the names of a kind that begin with a text.

    Args:
        kind: one of `KINDS`.
        incomplete: what was typed so far.
        known: names by kind; those of the working directory when None.

    Example:
        >>> matching("selection", "+or", {"assets": ["orders", "bad name", "x;y"]})
        ['+orders']
    """
    names = read() if known is None else known
    prefix = ""
    if kind == "selection":
        prefix, incomplete = ("+", incomplete[1:]) if incomplete.startswith("+") else ("", incomplete)
        kind = "assets"
    if kind == "filter":
        field, colon, incomplete = incomplete.partition(":")
        if not colon:
            fields = ("state", "kind", "asset", "automation", "by", "tag", "since", "until")
            return [f"{one}:" for one in fields if one.startswith(field)]
        prefix, bare = f"{field}:", field.removeprefix("-")
        if bare == "state":
            offered = ("running", "paused", "completed", "failed", "cancelled")
            return [f"{prefix}{one}" for one in offered if one.startswith(incomplete)]
        kind = {"asset": "assets", "automation": "schedules"}.get(bare, "")
    found = names.get(kind, ())
    if kind == "executors":
        found = dict.fromkeys([*found, *_executors_of_packages()])
    return [f"{prefix}{name}" for name in found if name.startswith(incomplete) and _SAFE.fullmatch(name)]


def _executors_of_packages() -> list[str]:
    """Return what installed packages register; each command would look through all of them to keep these."""
    from importlib.metadata import entry_points  # 20 ms that no other completion needs

    return sorted(point.name for point in entry_points(group=EXECUTORS_GROUP))


def read() -> dict[str, list[str]]:
    """Return the names that the last command in this directory knew; none when the file is not to be trusted."""
    for path in _places():
        found = _read(path)
        if found is not None:
            return found
    return {}


def remember(**names: Iterable[str]) -> None:
    """Keep names by kind for the next completion in this directory; nothing is said when that fails."""
    with suppress(OSError, ValueError):
        known = read()
        fresh = {kind: list(dict.fromkeys(found))[:_MAX_NAMES] for kind, found in names.items()}
        if "runs" in fresh:
            fresh["runs"] = list(dict.fromkeys([*fresh["runs"], *known.get("runs", ())]))[:_MAX_RUNS]
        if {**known, **fresh} != known:
            _write({**known, **fresh})


def _places() -> list[Path]:
    """Return where names may lie: in the storage directory, then in the cache of the user."""
    storage = Path(os.environ.get("FLOWSTONE_STORAGE") or ".flowstone")
    here = hashlib.sha256(str(Path.cwd()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME", ""), ".cache")  # noqa: PTH118
    return [storage / _FILE, Path(base) / "flowstone" / f"{here}.json"]


def _read(path: Path) -> dict[str, list[str]] | None:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            theirs = hasattr(os, "geteuid") and status.st_uid not in (os.geteuid(), 0)
            if theirs or not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022 or status.st_size > _MAX_BYTES:
                return None
            document = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    return {
        kind: [name for name in names if isinstance(name, str)]
        for kind, names in document.items()
        if isinstance(names, list)
    }


def _write(document: Mapping[str, list[str]]) -> None:
    in_storage, in_cache = _places()
    path = in_storage if in_storage.parent.is_dir() else in_cache
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # a name of its own, for the user alone, then in one step to its place: a reader never finds half of it
    descriptor, name = tempfile.mkstemp(prefix=f".{_FILE}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, ensure_ascii=False)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
