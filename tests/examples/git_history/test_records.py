from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_history.errors import MissingCommitError
from git_history.git import split
from git_history.records import FileChange, first_of_month, moment, offset_minutes, parse_commits, parse_numstat
from git_history.text import to_text

paths = st.binary(min_size=1).map(lambda raw: raw.replace(b"\0", b"0"))
numbers = st.integers(min_value=0, max_value=10**12)
counts = st.none() | numbers
commit_ids = st.one_of(*(st.text("0123456789abcdef", min_size=size, max_size=size) for size in (40, 64)))


@st.composite
def changes(draw: st.DrawFn) -> tuple[bytes, FileChange]:
    added = draw(counts)
    deleted = None if added is None else draw(numbers)
    before, after = draw(st.none() | paths), draw(paths)
    figures = b"\t".join(b"-" if number is None else b"%d" % number for number in (added, deleted))
    names = after if before is None else b"\0%s\0%s" % (before, after)
    change = FileChange("", to_text(after), None if before is None else to_text(before), added, deleted)
    return b"%s\t%s\0" % (figures, names), change


class Dripping(io.BytesIO):
    """A pipe that hands out a few bytes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(3)


@given(st.lists(st.tuples(commit_ids, st.lists(changes(), min_size=1))))
def test_whatever_numstat_prints_is_read_back(history: list[tuple[str, list[tuple[bytes, FileChange]]]]) -> None:
    output = b"".join(
        b"%s\0%s" % (commit.encode(), b"".join(text for text, _ in made)) for commit, made in history
    )
    expected = [(commit, change) for commit, made in history for _, change in made]
    read = list(parse_numstat(split(Dripping(output), b"\0"), [commit.encode() for commit, _ in history]))
    assert [each.commit for each in read] == [commit for commit, _ in expected]
    assert [(e.path, e.previous_path, e.added, e.deleted) for e in read] == [
        (e.path, e.previous_path, e.added, e.deleted) for _, e in expected
    ]


@given(st.lists(st.binary().map(lambda raw: raw.replace(b"\0", b""))))
def test_split_release_the_pieces(pieces: list[bytes]) -> None:
    output = b"".join(piece + b"\0" for piece in pieces)
    assert list(split(Dripping(output), b"\0")) == pieces
    assert list(split(io.BytesIO(output), b"\0")) == pieces


@pytest.mark.parametrize(
    "tokens",
    [
        [b"not an id"],
        [b"1\t2\tpath without a commit"],
        [b"a" * 40, b"1\tpath"],
        [b"a" * 40, b"1\t2\t", b"only the old name"],
    ],
)
def test_other_output_is_refused(tokens: list[bytes]) -> None:
    with pytest.raises(ValueError, match="git diff-tree"):
        list(parse_numstat(tokens, [b"a" * 40]))


@pytest.mark.parametrize("printed", [[], [b"b" * 40], [b"a" * 40], [b"a" * 40, b"1\t1\tx", b"c" * 40]])
def test_a_commit_that_git_passed_over_is_noticed(printed: list[bytes]) -> None:
    with pytest.raises(MissingCommitError, match="git fsck"):
        list(parse_numstat(printed, [b"a" * 40, b"b" * 40, b"c" * 40]))


def test_a_cut_commit_is_refused() -> None:
    with pytest.raises(ValueError, match="in the middle of commit"):
        list(parse_commits([b"a" * 40, b"", b"name"]))


@given(st.integers())
def test_every_number_is_a_moment(seconds: int) -> None:
    at = moment(str(seconds).encode())
    assert at.tzinfo is UTC
    assert first_of_month(at).day == 1


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (b"", datetime(1970, 1, 1, tzinfo=UTC)),
        (b"nonsense", datetime(1970, 1, 1, tzinfo=UTC)),
        (b"-1", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (b"2147483648", datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC)),
        (b"9" * 5000, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (b"-" + b"9" * 5000, datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_strange_moments(seconds: bytes, expected: datetime) -> None:
    assert moment(seconds) == expected


@pytest.mark.parametrize(
    ("date", "minutes"),
    [
        (b"0 +0530", 330),
        (b"0 -1200", -720),
        (b"0 +1400", 840),
        (b"0 +1401", 0),
        (b"0 +9999", 0),
        (b"", 0),
        (b"0 -00x0", 0),
    ],
)
def test_zones(date: bytes, minutes: int) -> None:
    assert offset_minutes(date) == minutes
