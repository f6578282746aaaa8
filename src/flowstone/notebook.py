"""For notebooks: a line that says how far a run is, updated in place.

What apps, graphs, plans, results and materializations look like there, they say themselves (`_repr_html_`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from html import escape
from typing import Any, TextIO

from flowstone.app.results import Progress

_WIDTH = 24


def progress(*, stream: TextIO | None = None) -> Callable[[Progress], None]:
    """Return a listener for `on_progress=` that shows how far a run is.

    In a notebook it is a bar in the output of the cell, elsewhere a line on the standard error.

    Args:
        stream: write lines there, also in a notebook.

    Example:
        >>> from flowstone import FlowStone, asset
        >>> @asset
        ... def numbers():
        ...     return [1, 2, 3]
        >>> flow = FlowStone.for_testing([numbers])
        >>> done = flow.materialize_all("numbers", on_progress=progress(stream=sys.stdout))
        [........................] 0 of 1
        [########################] 1 of 1
    """
    display = None if stream is not None else _notebook_display()
    return _NotebookBar(display) if display is not None else _Lines(stream or sys.stderr)


class _Lines:
    """A line whenever something changed; on a terminal always the same one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def __call__(self, progress: Progress) -> None:
        line = _line(progress)
        if line == self._last:
            return
        self._last = line
        is_terminal = self._stream.isatty()
        end = "\n" if not is_terminal or progress.done == progress.total else ""
        self._stream.write(f"\r\x1b[2K{line}{end}" if is_terminal else f"{line}\n")
        self._stream.flush()


class _NotebookBar:
    """An output of the cell, replaced whenever something changed."""

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handle: Any = None
        self._last = ""

    def __call__(self, progress: Progress) -> None:
        line = _line(progress)
        if line == self._last:
            return
        self._last = line
        shown = {"text/plain": line, "text/html": _html(progress)}
        if self._handle is None:
            self._handle = self._display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)


def _notebook_display() -> Callable[..., Any] | None:
    """Return what displays an output in the notebook that this process is the kernel of."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    found: Callable[..., Any] = display
    return found


def _line(progress: Progress) -> str:
    filled = _WIDTH * progress.done // max(1, progress.total)
    return f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {_text(progress)}"


def _text(progress: Progress) -> str:
    failed = f", {progress.failed:,} without result" if progress.failed else ""
    waiting = f"; waits: {progress.waiting_for[0]}" if progress.waiting_for else ""
    return f"{progress.done:,} of {progress.total:,}{failed}{waiting}"


def _html(progress: Progress) -> str:
    bar = f'<progress value="{progress.done}" max="{max(1, progress.total)}"></progress>'
    return f"<div>{bar} {escape(_text(progress))} <small>run {escape(progress.run_id)}</small></div>"
