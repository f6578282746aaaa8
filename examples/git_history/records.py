"""The two output formats of git that we read, as types, and their parsers (pure, no process, no clock)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from git_history.errors import MissingCommitError
from git_history.text import to_text

COMMIT_FORMAT = "%H%x00%P%x00%an%x00%ae%x00%at%x00%ad%x00%ct%x00%s"
"""Eight fields; with `-z` a NUL also ends each commit. `%ad` needs `--date=raw`."""

_FIELDS = 8
_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WIDEST_ZONE = 14 * 60  # minutes; Kiribati
_MAX_CHARACTERS = 1000  # characters of a name or subject that are worth keeping
_NUMSTAT = re.compile(rb"(\d+|-)\t(\d+|-)\t(.*)", re.DOTALL)
_OBJECT_ID = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit, as far as the analysis needs it.

    Args:
        id: full object id, hexadecimal.
        parents: number of parents; 0 for a root, 2 or more for a merge.
        committed_at: when it was committed, UTC, whole seconds.
        authored_at: when it was written, UTC, whole seconds.
        author_offset_minutes: offset of the author's clock from UTC; 0 where the recorded one cannot exist.
        author_name: may be empty.
        author_email: may be empty.
        subject: first paragraph of the message, in one line, at most 1000 characters.
    """

    id: str
    parents: int
    committed_at: datetime
    authored_at: datetime
    author_offset_minutes: int
    author_name: str
    author_email: str
    subject: str


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file that a commit changed.

    Args:
        commit: full object id.
        path: the path after the change (of a deleted file: before).
        previous_path: where it was before, if it was renamed.
        added: lines added; None for binary files.
        deleted: lines deleted; None for binary files.
    """

    commit: str
    path: str
    previous_path: str | None
    added: int | None
    deleted: int | None


def moment(seconds: bytes) -> datetime:
    """Read the seconds since 1970 that git prints.

    What does not fit into a `datetime` is clamped to the years 1 and 9999. Git prints nothing for a date
    that it cannot read (a negative one, in today's versions), and takes it for 1970-01-01; so do we.

    Args:
        seconds: decimal digits, maybe a sign, or nothing.

    Returns:
        The moment, in UTC.

    Example:
        >>> moment(b"1700000000").isoformat()
        '2023-11-14T22:13:20+00:00'
        >>> moment(b"99999999999999999999").year, moment(b"").year
        (9999, 1970)
    """
    try:
        number = int(seconds[:30] or b"0")  # int() refuses absurd lengths; 30 digits are clamped anyway
        return _EPOCH + timedelta(seconds=number)
    except OverflowError:
        return _EARLIEST if seconds.startswith(b"-") else _LATEST
    except ValueError:
        return _EPOCH


def first_of_month(at: datetime) -> date:
    """Return the month partition of a moment.

    Example:
        >>> first_of_month(moment(b"1700000000"))
        datetime.date(2023, 11, 1)
    """
    return date(at.year, at.month, 1)


def offset_minutes(raw_date: bytes) -> int:
    """Read the zone of a date that git printed with `--date=raw`, such as `1700000000 +0200`.

    Args:
        raw_date: seconds and zone, or nothing.

    Returns:
        Minutes east of UTC; 0 for zones beyond 14 hours, which no clock on earth has.

    Example:
        >>> offset_minutes(b"0 -0330"), offset_minutes(b"0 +9999")
        (-210, 0)
    """
    zone = raw_date.rpartition(b" ")[2]
    if not re.fullmatch(rb"[+-]\d{4}", zone):
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[3:5])
    if minutes > _WIDEST_ZONE:
        return 0
    return -minutes if zone.startswith(b"-") else minutes


def parse_commits(tokens: Iterable[bytes]) -> Iterator[Commit]:
    """Read the output of `git log -z --date=raw --format=COMMIT_FORMAT`, split at NUL.

    Args:
        tokens: the fields of all commits, one after the other.

    Yields:
        Commits in the order of the input.

    Raises:
        ValueError: the output ends within a commit.
    """
    fields = iter(tokens)
    for object_id in fields:
        rest = [field for _, field in zip(range(_FIELDS - 1), fields, strict=False)]
        if len(rest) < _FIELDS - 1:
            raise ValueError(f"git log ended in the middle of commit {object_id!r}")
        parents, name, email, authored, authored_raw, committed, subject = rest
        yield Commit(
            id=object_id.decode("ascii"),
            parents=len(parents.split()),
            committed_at=moment(committed),
            authored_at=moment(authored),
            author_offset_minutes=offset_minutes(authored_raw),
            author_name=to_text(name)[:_MAX_CHARACTERS],
            author_email=to_text(email)[:_MAX_CHARACTERS],
            subject=to_text(subject)[:_MAX_CHARACTERS],
        )


def parse_numstat(tokens: Iterable[bytes], commits: Iterable[bytes]) -> Iterator[FileChange]:
    r"""Read the output of `git diff-tree --stdin --always -r -z --numstat -M`, split at NUL.

    A commit starts with its id. A file is `added TAB deleted TAB path`; a renamed one has an empty path
    there and two more tokens, before and after. Binary files have `-` for both numbers. An id has no TAB, so
    that no path, whatever it contains, can be mistaken for anything else.

    Args:
        tokens: the pieces of the output.
        commits: the ids that git was given: it passes over a missing one in silence, we do not.

    Yields:
        Changes in the order of the input.

    Raises:
        MissingCommitError: the output lacks a commit.
        ValueError: the output is not of this form.

    Example:
        >>> sha = b"1" * 40
        >>> [change.path for change in parse_numstat([sha, b"1\t0\ta", b"-\t-\t", b"b", b"c"], [sha])]
        ['a', 'c']
    """
    pieces, awaited = iter(tokens), iter(commits)
    commit = ""
    for piece in pieces:
        if _OBJECT_ID.fullmatch(piece):
            if (requested := next(awaited, piece)) != piece:
                raise MissingCommitError(requested.decode("ascii"))
            commit = piece.decode("ascii")
        else:
            yield _file_change(commit, piece, pieces)
    if missing := next(awaited, None):
        raise MissingCommitError(missing.decode("ascii"))


def _file_change(commit: str, piece: bytes, rest: Iterator[bytes]) -> FileChange:
    numbers = _NUMSTAT.fullmatch(piece)
    if not commit or not numbers:
        raise ValueError(f"unexpected output of git diff-tree: {piece[:100]!r}")
    added, deleted, path = numbers.groups()
    before = None if path else next(rest, b"")
    after = path or next(rest, b"")
    if not after:
        raise ValueError(f"git diff-tree ended in the middle of a rename in commit {commit}")
    return FileChange(
        commit=commit,
        path=to_text(after),
        previous_path=None if before is None else to_text(before),
        added=None if added == b"-" else int(added),
        deleted=None if deleted == b"-" else int(deleted),
    )
