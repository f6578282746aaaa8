"""What the command line writes: one JSON document, or text and tables fit for the terminal at hand."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowstone.core.clean import clean_text, mask_secrets, masked_document
from flowstone.core.state import State

_UNLIMITED = 10_000  # columns; a pipe has no width, and what reads it wants whole lines
_GAP = 2
_WORDS = re.compile(r"(?:`[^`]*`|\S)+")
_STYLES: Mapping[str, str] = {
    State.COMPLETED: "green",
    State.REUSED: "green",
    State.FAILED: "red",
    State.UPSTREAM_FAILED: "red",
    State.CANCELLED: "yellow",
    State.CANCELLING: "yellow",
    State.SKIPPED: "yellow",
    State.RETRYING: "yellow",
    State.AWAITING_APPROVAL: "yellow",
    State.RUNNING: "cyan",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Args:
        title: heading.
        rank: 0 is always shown; of the others the highest goes first when the terminal is narrow.
        right: whether it holds numbers.
    """

    title: str
    rank: int = 0
    right: bool = False


class Output:
    """Standard output for results, standard error for everything else.

    Args:
        as_json: whether the result is one JSON document.
        wide: whether tables show all columns although the terminal is narrower.
    """

    def __init__(self, *, as_json: bool, wide: bool = False) -> None:
        self.as_json = as_json
        self._wide = wide
        # held on to, because user code that prints is sent to standard error while JSON is written
        self._stdout = sys.stdout
        self._stderr = sys.stderr
        self._documents = 0

    def json(self, document: Mapping[str, object]) -> None:
        """Write the one JSON document of a command."""
        if self._documents:
            return
        self._documents += 1
        self._write(self._stdout, json.dumps(masked_document(document), indent=2, default=_plain) + "\n")

    def json_line(self, document: Mapping[str, object]) -> None:
        """Write one document of many, on a line of its own, as it becomes known."""
        self._documents += 1
        self._write(self._stdout, json.dumps(masked_document(document), default=_plain) + "\n")

    @property
    def answered(self) -> bool:
        """Whether the JSON document was written."""
        return self._documents > 0

    def line(self, text: str | Text = "", *, style: str = "", hang: int | None = None) -> None:
        """Write a line of the result; with `hang`, wrapped by words with lines that follow indented so far."""
        console = self._console(self._stdout)
        if hang is not None and isinstance(text, str):
            text = wrap_words(clean_text(text), console.width, hang=hang)
        self._print(console, text, style)

    def note(self, text: str, *, style: str = "") -> None:
        """Write a line for the person, to standard error; wrapped by words, commands left whole."""
        console = self._console(self._stderr)
        self._print(console, wrap_words(clean_text(text), console.width), style)

    def error(self, text: str) -> None:
        """Write what went wrong, to standard error."""
        console = self._console(self._stderr)
        wrapped = wrap_words("Error: " + clean_text(text), console.width).removeprefix("Error: ")
        shown = Text("Error: ", style="bold red")
        shown.append(wrapped, style="not bold default")
        self._print(console, shown, "")

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        """Write a table; columns that do not fit are left out by rank, which is said, then cells are wrapped."""
        console = self._console(self._stdout)
        cells = [[one_line(cell) for cell in row] for row in rows]
        if self._wide:
            console.width = _UNLIMITED
        kept = _fitting(columns, cells, console.width)
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_edge=False)
        for index in kept:
            column = columns[index]
            table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
        for row in cells:
            table.add_row(*[Text(row[index], style=_STYLES.get(row[index], "")) for index in kept])
        self._print(console, table, "")
        hidden = [column.title for index, column in enumerate(columns) if index not in kept]
        if hidden and cells:
            self.note(
                f"Not shown in {console.width} columns: {', '.join(hidden)}. --wide shows them.", style="dim"
            )

    @property
    def is_interactive(self) -> bool:
        """Whether a person is there to be asked."""
        return sys.stdin is not None and sys.stdin.isatty() and self._stderr.isatty()

    def stdout_console(self) -> Console:
        """Return the console of standard output, to begin a screen anew."""
        return self._console(self._stdout)

    def stderr_console(self) -> Console:
        """Return the console of standard error, for progress bars."""
        return self._console(self._stderr)

    def flush(self) -> None:
        """Hand everything to whoever reads it."""
        self._write(self._stdout, "")

    def _console(self, file: TextIO) -> Console:
        width = None if file.isatty() else _UNLIMITED
        if width is not None and (given := os.environ.get("COLUMNS", "")).isdecimal():
            width = max(20, int(given))
        return Console(file=file, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)

    def _print(self, console: Console, what: str | Text | Table, style: str) -> None:
        shown = Text(clean_text(what)) if isinstance(what, str) else what
        with console.capture() as captured:
            # lines of text are left to the terminal to wrap, so that they can be copied whole
            console.print(shown, style=style or None, soft_wrap=not isinstance(shown, Table))
        lines = [line.rstrip(" ") for line in captured.get().split("\n")]
        self._write(console.file, "\n".join(lines))

    def _write(self, file: object, text: str) -> None:
        assert hasattr(file, "write")
        assert hasattr(file, "flush")
        try:
            file.write(text)
            file.flush()
        except BrokenPipeError:
            _stop_writing(file)


def wrap_words(text: str, width: int, *, hang: int = 0) -> str:
    """Break lines between words; what stands in backticks, such as a command to copy, is never broken.

    Args:
        text: one or more lines; those that begin with a space, as tracebacks do, stay as they are.
        width: columns of the terminal.
        hang: spaces before the lines that are added.

    Example:
        >>> print(wrap_words("Run it again with `flowstone retry r1` now", 24))
        Run it again with
        `flowstone retry r1` now
    """
    return "\n".join(_wrapped(line, width, hang) for line in text.split("\n"))


def _wrapped(line: str, width: int, hang: int) -> str:
    if cell_len(line) <= width or (not hang and line.startswith((" ", "\t"))):
        return line
    start = line[: len(line) - len(line.lstrip())]
    lines, here, used = [], start, cell_len(start)
    for word in _WORDS.findall(line.strip()):
        size = cell_len(word)
        if here.strip() and used + 1 + size > width:
            lines.append(here)
            here, used = " " * hang, hang
        gap = " " if here.strip() else ""
        here += gap + word
        used += len(gap) + size
    return "\n".join([*lines, here])


def one_line(text: str) -> str:
    r"""Return text of users on one line, without what could disturb a terminal.

    Example:
        >>> one_line("two\nlines \x1b[31mred")
        'two\\nlines red'
    """
    return clean_text(text).replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")


def moment(at: datetime | None) -> str:
    """Return a moment in the reader's own time zone.

    Example:
        >>> moment(None)
        ''
    """
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %z") if at else ""


def took(started: datetime | None, finished: datetime | None) -> str:
    """Return a duration for people.

    Example:
        >>> from datetime import UTC
        >>> took(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 0, 1, 30, tzinfo=UTC))
        '1m 30s'
    """
    return duration((finished - started).total_seconds()) if started and finished else ""


def duration(seconds: float) -> str:
    """Return seconds for people.

    Example:
        >>> duration(0.0123), duration(4.56), duration(3700), duration(30 * 86400)
        ('12 ms', '4.6 s', '1h 1m', '30 days')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours < 48 else f"{hours // 24} days"


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    needed = [
        max([cell_len(column.title), *(cell_len(row[index]) for row in rows)])
        for index, column in enumerate(columns)
    ]
    kept = list(range(len(columns)))
    while sum(needed[index] + _GAP for index in kept) - _GAP > width:
        droppable = [index for index in kept if columns[index].rank]
        if not droppable:
            break
        kept.remove(max(droppable, key=lambda index: columns[index].rank))
    return kept


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return mask_secrets(str(value))


def _stop_writing(file: object) -> None:
    """Send what is still written to nowhere: whoever read it has seen enough (`flowstone ls | head`)."""
    try:
        descriptor = file.fileno()  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
