"""What attempts log, as it is kept and read: batches of lines with their numbers, and how many are kept.

An attempt keeps the beginning and the end of what it logs. Lines are numbered as they were logged, so what was
left out in between shows as a gap in the numbers and needs no counter. `LogBuffer` holds what is not written yet,
`written_lines` makes lines of it that a database, a terminal and a page can show, `LogBatch` is a row.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from flowstone.core.clean import clean_text
from flowstone.core.partitions import PartitionKey

HEAD_LINES = 100
TAIL_LINES = 1_900
HEAD_CHARACTERS = 32 * 1024
TAIL_CHARACTERS = 224 * 1024
MAX_LINE = 4_000
"""Characters of a line that are kept."""
MAX_ENTRY = 64 * 1024
"""Characters of one message, or of what is printed at once, that are kept."""

_BATCH_LINES = 200
_BATCH_CHARACTERS = 32 * 1024
_LETTERS: Mapping[str, str] = {
    "DEBUG": "D",
    "INFO": "I",
    "WARNING": "W",
    "ERROR": "E",
    "CRITICAL": "C",
    "stdout": "o",
    "stderr": "e",
}
_SOURCES = {letter: source for source, letter in _LETTERS.items()}
_WORD = 200
_OTHER = re.compile(r"[^\w-]", re.ASCII)
_FIRST_WORD = re.compile(r"\A\S{1,200}")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\n])")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that an attempt logged.

    Args:
        number: its place in what the attempt logged, from 1; a gap is what was left out.
        at: when.
        source: the level of a log record (`INFO`, ...), or `stdout` or `stderr` of what was printed.
        text: without secrets and control characters.
        token: fencing token of its attempt: an attempt that was released and claimed again counts anew from 1.
        left_out: how many lines right before this one are not kept.
    """

    number: int
    at: datetime
    source: str
    text: str
    token: int = 0
    left_out: int = 0


class LogBatch(NamedTuple):
    """Lines of an attempt that were written together; a row of the store.

    Args:
        step_id: the step.
        attempt: number of the attempt.
        token: its fencing token.
        line: number of the first line.
        lines: how many; they are numbered one after the other.
        run_id: run of the step.
        body: the lines, see `written_lines`.
    """

    step_id: int
    attempt: int
    token: int
    line: int
    lines: int
    run_id: str
    body: str

    def read(self) -> Iterator[LogLine]:
        """Yield its lines.

        Example:
            >>> [(one.number, one.source, one.text) for one in LogBatch(1, 1, 1, 7, 1, "r", "0 I ready").read()]
            [(7, 'INFO', 'ready')]
        """
        for number, written in enumerate(self.body.split("\n"), self.line):
            at, _, rest = written.partition(" ")
            letter, _, text = rest.partition(" ")
            moment = datetime.fromtimestamp(int(at or 0) / 1000, UTC)
            yield LogLine(number, moment, _SOURCES.get(letter, letter), text, self.token)


class LogPosition(NamedTuple):
    """The place of a batch among those of a run, in the order in which they were written.

    Args:
        written_at: when.
        step_id: the step.
        attempt: number of the attempt.
        token: its fencing token.
        line: number of its first line.
    """

    written_at: datetime
    step_id: int
    attempt: int
    token: int
    line: int


class WrittenBatch(NamedTuple):
    """A batch of a run, with its place.

    Args:
        position: its place.
        batch: the batch.
        asset: asset of the step.
        partition_key: its partition.
    """

    position: LogPosition
    batch: LogBatch
    asset: str
    partition_key: PartitionKey


class Trim(NamedTuple):
    """Which batches of an attempt are not kept: those that begin behind the head and before the tail.

    Args:
        step_id: the step.
        attempt: number of the attempt.
        token: its fencing token.
        head: number of the last line of the head.
        tail: number of the first line that is kept behind it.
    """

    step_id: int
    attempt: int
    token: int
    head: int
    tail: int


class LogCount(NamedTuple):
    """How much an attempt has logged.

    Args:
        step_id: the step.
        attempt: number of the attempt.
        lines: lines that it logged.
        kept: lines that are there to be read.
    """

    step_id: int
    attempt: int
    lines: int
    kept: int


class Entry(NamedTuple):
    """A message, or whole lines that were printed, not cleaned yet.

    Args:
        at: seconds since the epoch.
        source: level, `stdout` or `stderr`.
        text: without a newline at its end.
        lines: how many lines that is.
    """

    at: float
    source: str
    text: str
    lines: int

    @classmethod
    def of(cls, at: float, source: str, text: str) -> Entry:
        """Return an entry of at most `MAX_ENTRY` characters; of a longer text its beginning and its end."""
        if len(text) > MAX_ENTRY:
            half = MAX_ENTRY // 2
            # a word that is cut in the middle may be a secret that nothing recognises any more
            head = _without_last_word(text[:half])
            cut = f"[... {len(text) - 2 * half:,} and some characters left out ...]"
            text = f"{head}\n{cut}\n{_FIRST_WORD.sub('', text[-half:])}"
        return cls(at, source, text, text.count("\n") + 1)


class LogBuffer:
    """What one attempt has logged and the store does not have yet, and the numbers of what it has.

    Whoever uses it holds a lock. The first lines are kept in any case; of the others, the last ones.

    Example:
        >>> buffer = LogBuffer()
        >>> for number in range(5_000):
        ...     buffer.add(Entry.of(0.0, "INFO", f"line {number + 1}"))
        >>> head, dropped, tail = buffer.take()
        >>> len(head), dropped, len(tail), tail[0].text
        (100, 3000, 1900, 'line 3101')
    """

    __slots__ = ("_dropped", "_head", "_head_characters", "_head_lines", "_tail", "_tail_lines", "characters")

    def __init__(self) -> None:
        self._head: list[Entry] = []
        self._head_lines = HEAD_LINES
        self._head_characters = HEAD_CHARACTERS
        self._tail: deque[Entry] = deque()
        self._tail_lines = 0
        self._dropped = 0
        self.characters = 0

    def __bool__(self) -> bool:
        return bool(self._head or self._tail or self._dropped)

    def add(self, entry: Entry) -> None:
        """Add an entry; the oldest ones behind the head go when there are too many."""
        if self._head_lines > 0 and self._head_characters > 0 and not self._tail and not self._dropped:
            self._head.append(entry)
            self._head_lines -= entry.lines
            self._head_characters -= len(entry.text)
            self.characters += len(entry.text)
            return
        self._tail.append(entry)
        self._tail_lines += entry.lines
        self.characters += len(entry.text)
        while len(self._tail) > 1 and (self._tail_lines > TAIL_LINES or self.characters > TAIL_CHARACTERS):
            self._drop()

    def clear_tail(self) -> None:
        """Drop all but the head: the process holds too much that cannot be written."""
        while self._tail:
            self._drop()

    def take(self) -> tuple[list[Entry], int, list[Entry]]:
        """Return, and forget, what is first, how many lines were left out behind it, and what is last."""
        taken = self._head, self._dropped, list(self._tail)
        self._head = []
        self._tail.clear()
        self._tail_lines = self._dropped = self.characters = 0
        return taken

    def _drop(self) -> None:
        gone = self._tail.popleft()
        self._tail_lines -= gone.lines
        self._dropped += gone.lines
        self.characters -= len(gone.text)


class LogNumbers:
    """Numbers the lines of one attempt, makes batches of them, and says which batches are not kept any more.

    Args:
        step_id: the step.
        attempt: number of the attempt.
        token: its fencing token.
        run_id: its run.
    """

    __slots__ = ("_attempt", "_head", "_next", "_run_id", "_tail", "_tail_characters", "_tail_lines")

    def __init__(self, step_id: int, attempt: int, token: int, run_id: str) -> None:
        self._attempt = (step_id, attempt, token)
        self._run_id = run_id
        self._next = 1
        self._head = 0
        self._tail: deque[tuple[int, int, int]] = deque()
        self._tail_lines = self._tail_characters = 0

    def batches(
        self, head: Iterable[Entry], dropped: int, tail: Iterable[Entry]
    ) -> tuple[list[LogBatch], Trim | None]:
        """Return what to add to the store, and what to delete of this attempt there."""
        made = self._made(head)
        if made:
            self._head = self._next - 1
        self._next += dropped
        last = self._made(tail)
        for batch in last:
            self._tail.append((batch.line, batch.lines, len(batch.body)))
            self._tail_lines += batch.lines
            self._tail_characters += len(batch.body)
        trimmed = False
        while len(self._tail) > 1:
            _, lines, characters = self._tail[0]
            if self._tail_lines - lines < TAIL_LINES and self._tail_characters - characters < TAIL_CHARACTERS:
                break
            self._tail.popleft()
            self._tail_lines -= lines
            self._tail_characters -= characters
            trimmed = True
        trim = Trim(*self._attempt, self._head, self._tail[0][0]) if trimmed else None
        return made + last, trim

    def _made(self, entries: Iterable[Entry]) -> list[LogBatch]:
        step_id, attempt, token = self._attempt
        made = []
        for lines in _chunks(written_lines(entries)):
            made.append(LogBatch(step_id, attempt, token, self._next, len(lines), self._run_id, "\n".join(lines)))
            self._next += len(lines)
        return made


def _chunks(lines: Iterable[str]) -> Iterator[Sequence[str]]:
    chunk: list[str] = []
    characters = 0
    for line in lines:
        chunk.append(line)
        characters += len(line)
        if len(chunk) >= _BATCH_LINES or characters >= _BATCH_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def written_lines(entries: Iterable[Entry]) -> Iterator[str]:
    r"""Yield lines as they are written: milliseconds since the epoch, a letter for the source, text.

    What a progress bar overwrote is left out, secrets are masked (in a message as a whole, as a key may have
    several lines), control characters and lone surrogates become escapes, ANSI sequences go, long lines are cut.

    Example:
        >>> list(written_lines([Entry.of(1.5, "stdout", "10 %\r100 %\npassword=hunter2 \x00")]))
        ['1500 o 100 %', '1500 o password=*** \\x00']
    """
    for entry in entries:
        text = entry.text
        if "\r" in text:
            text = _OVERWRITTEN.sub("", text.replace("\r\n", "\n")).replace("\r", "")
        letter = _LETTERS.get(entry.source) or _OTHER.sub("_", entry.source)[:20] or "?"
        start = f"{int(entry.at * 1000)} {letter} "
        for line in clean_text(text, limit=2 * MAX_ENTRY).split("\n"):
            yield start + (line if len(line) <= MAX_LINE else _cut(line))


def _without_last_word(text: str) -> str:
    """Return a text without what may be the beginning of a word: at most its last 200 characters."""
    end = text[-_WORD:]
    return text[: len(text) - len(end) + 1 + max(end.rfind(" "), end.rfind("\n"), end.rfind("\t"))]


def _cut(line: str) -> str:
    kept = _without_last_word(line[:MAX_LINE])
    return f"{kept}[... {len(line) - len(kept):,} characters left out ...]"
