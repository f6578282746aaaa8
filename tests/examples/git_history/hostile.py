"""Repositories for tests, made byte by byte with `git fast-import`: a hostile one, and long ones in seconds."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT_NAME = b"<script>alert(1)</script>"
BIDI_PATH = "docs/\u202egpj.exe".encode()
LATIN1_PATH = b"caf\xe9/na\xefve.txt"
NEWLINE_PATH = b"odd/new\nline\ttab\"quote'back\\slash.txt"
LONG_PATH = b"deep/" + b"/".join([b"x" * 200] * 8) + b"/end.txt"
SHA_PATH = b"1" * 40
"""A file that is named like a commit id."""
RENAMED_FROM, RENAMED_TO = b"before\nname.txt", b"apr\xe8s <b>.txt"

_ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "LC_ALL": "C",
}


def run_git(path: Path, *arguments: str, given: bytes = b"") -> bytes:
    """Run git in a directory and return its output."""
    command = ["git", "-C", str(path), *arguments]
    return subprocess.run(command, input=given, capture_output=True, check=True, env=_ENVIRONMENT).stdout.strip()


@dataclass
class Stream:
    """A fast-import stream under construction; one branch unless another is given."""

    parts: list[bytes] = field(default_factory=list)
    marks: int = 0

    def commit(
        self,
        *changes: bytes,
        author: bytes = b"Ann <ann@example.org>",
        date: bytes = b"1700000000 +0000",
        author_date: bytes | None = None,
        message: bytes = b"change",
        parents: tuple[int, ...] | None = None,
        branch: bytes = b"refs/heads/main",
        encoding: bytes = b"",
    ) -> int:
        """Append a commit and return its mark; `parents=None` continues the branch, `()` makes a root."""
        self.marks += 1
        lines = [b"commit %s\n" % branch, b"mark :%d\n" % self.marks]
        lines.append(b"author %s %s\n" % (author, author_date or date))
        lines.append(b"committer Com Mitter <com@example.org> %s\n" % date)
        lines += [b"encoding %s\n" % encoding] if encoding else []
        lines.append(b"data %d\n%s\n" % (len(message), message))
        if parents is not None:
            words = [b"from", *[b"merge"] * (len(parents) - 1)]
            lines += [b"%s :%d\n" % pair for pair in zip(words, parents, strict=False)]
        if parents == ():
            self.parts.append(b"reset %s\n\n" % branch)  # forget the tip: the next commit has no parent
        self.parts.append(b"".join([*lines, *changes, b"\n"]))
        return self.marks

    def into(self, path: Path, *, options: tuple[str, ...] = ()) -> Path:
        """Create a bare repository at `path` with everything so far; HEAD is `main`."""
        path.mkdir(parents=True)
        run_git(path, "init", "-q", "--bare", "-b", "main", *options)
        run_git(path, "fast-import", "--quiet", "--date-format=raw-permissive", given=b"".join(self.parts))
        return path


def modify(path: bytes, content: bytes) -> bytes:
    """The command that writes a file."""
    return b"M 100644 inline %s\ndata %d\n%s\n" % (_quoted(path), len(content), content)


def rename(before: bytes, after: bytes) -> bytes:
    """The command that renames a file."""
    return b"R %s %s\n" % (_quoted(before), _quoted(after))


def hostile_repository(path: Path) -> Path:
    """Create a bare repository with everything that breaks naive readers of git's output.

    Hostile, empty, very long and undecodable names and paths, binary files, renames, empty commits, several roots,
    an octopus merge, and dates from 1970 to beyond the calendar, with zones that do not exist.
    """
    stream = Stream()
    text = b"".join(b"line %d\n" % number for number in range(30))
    paths = (
        SCRIPT_NAME,
        BIDI_PATH,
        LATIN1_PATH,
        NEWLINE_PATH,
        LONG_PATH,
        SHA_PATH,
        b"5\t5\tx",
        b"-\t-\t",
        b" lead",
    )
    first = stream.commit(
        *(modify(each, b"a\nb\n") for each in paths),
        author=SCRIPT_NAME.replace(b"<", b"").replace(b">", b"") + b" <x@example.org>",
        date=b"1262304000 +0000",
    )
    stream.commit(modify(RENAMED_FROM, text), author=b"J\xf6rg <j\xf6rg@example.org>", date=b"1265000000 +0530")
    stream.commit(rename(RENAMED_FROM, RENAMED_TO), author=b" <>", date=b"1268000000 -1200", message=b"")
    stream.commit(
        modify(RENAMED_TO, text + b"more\n"), date=b"1271000000 +9999", message=b"a\nb\n\nbody\n" + b"z" * 70_000
    )
    stream.commit(modify(b"image.bin", bytes(range(256)) * 4), date=b"1271000001 +0000", author=b"NoMail <>")
    stream.commit(date=b"1271000002 +0000", message=b"an empty commit")
    stream.commit(modify(b"old", b"1\n"), date=b"0 +0000", author_date=b"1 -0700", message=b"born with the epoch")
    stream.commit(modify(b"y2038", b"1\n"), date=b"2147483648 +0000")
    stream.commit(modify(b"y2200", b"1\n"), date=b"7258118400 +1400")
    stream.commit(modify(b"never", b"1\n"), date=b"999999999999999 +0000", message=b"beyond the calendar")
    stream.commit(
        modify(b"latin", b"1\n"), message=b"caf\xe9", encoding=b"ISO-8859-1", author=b"Ren\xe9 <r@example.org>"
    )
    trunk = stream.commit(
        modify(b"\xf0\x9f\x98\x80", b"1\n"),
        author="\u202e<\u200bevil@example.org>".encode().replace("\u202e<".encode(), "\u202e <".encode()),
    )
    side = b"refs/heads/side"
    roots = tuple(
        stream.commit(
            modify(b"root%d" % number, b"1\n"),
            parents=(),
            branch=b"%s%d" % (side, number),
            date=b"1600000000 +0000",
        )
        for number in range(3)
    )
    stream.commit(
        modify(b"merged", b"1\n"), parents=(trunk, *roots, first), message=b"octopus", date=b"1650000000 +0000"
    )
    return stream.into(path)


def long_repository(path: Path, commits: int, *, files: int = 200, per_day: int = 10) -> Path:
    """Create a bare repository with a straight history of many small commits, from 2005 on."""
    stream = Stream()
    for number in range(commits):
        stream.commit(
            modify(b"src/module%d.py" % (number * number % files), b"value = %d\n" % number),
            author=b"Author %d <a%d@example.org>" % (number % 97, number % 97),
            date=b"%d +0100" % (1104537600 + number * (86400 // per_day)),
            message=b"change %d" % number,
        )
    return stream.into(path)


def with_raw_commit(path: Path, header_dates: tuple[bytes, bytes]) -> Path:
    """Put a commit on top of HEAD whose author and committer lines end in bytes that git would never write."""
    tree, tip = (run_git(path, "rev-parse", name) for name in ("HEAD^{tree}", "HEAD"))
    raw = b"tree %s\nparent %s\nauthor A <a@x> %s\ncommitter C <c@x> %s\n\nodd\n" % (tree, tip, *header_dates)
    made = run_git(path, "hash-object", "-t", "commit", "-w", "--stdin", "--literally", given=raw)
    run_git(path, "update-ref", "HEAD", made.decode())
    return path


def _quoted(path: bytes) -> bytes:
    return b'"%s"' % b"".join(b"\\%03o" % byte for byte in path)
