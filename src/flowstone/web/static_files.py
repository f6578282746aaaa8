"""The files that browsers keep: style, scripts, the icon, under an address that changes with their content."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DIRECTORY = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file, read once.

    Args:
        name: of the file.
        content: as it is.
        compressed: with gzip.
        media_type: for `Content-Type`.
    """

    name: str
    content: bytes
    compressed: bytes
    media_type: str


@cache
def static_files() -> dict[str, StaticFile]:
    """Return every file by its path below the dashboard; a request is compared with these, never with a disk.

    All lie under one hash of all contents, so that modules find each other by relative names.

    Example:
        >>> sorted(one.name for one in static_files().values())[0]
        'app.js'
    """
    names = sorted(path for path in DIRECTORY.iterdir() if path.suffix in _TYPES)
    contents = {path: path.read_bytes() for path in names}
    digest = hashlib.sha256()
    for path, content in contents.items():
        digest.update(path.name.encode() + b"\0" + content + b"\0")
    version = digest.hexdigest()[:12]
    return {
        f"/static/{version}/{path.name}": StaticFile(
            path.name, content, gzip.compress(content, 9, mtime=0), _TYPES[path.suffix]
        )
        for path, content in contents.items()
    }


@cache
def static_path(name: str) -> str:
    """Return the path of a file by its name.

    Raises:
        KeyError: there is no such file.
    """
    return next(path for path, one in static_files().items() if one.name == name)
