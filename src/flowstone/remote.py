"""Runs one call in a process of its own: the entry of containers, Slurm jobs, and whatever else can start Python.

    python -m flowstone.remote CALL ANSWER [--lifeline]

`CALL` is the file that describes the call, `ANSWER` the file that is written; `-` is standard input or output.
What the asset prints goes to standard output, or to standard error when the answer goes there; what it logs is
appended to the file `ANSWER.log` while it runs, and comes with the answer too. With `--lifeline`
standard input belongs to whoever waits: a line is the reason of a cancel, and its end means that nobody waits.

The exit code says whether there is an answer, not what is in it: a function that raised is answered with 0, so
that nothing between here and the worker repeats it. `SIGTERM` and `SIGINT` cancel the call.

| code | means |
|---|---|
| 0 | the answer is written |
| 64 | the command line cannot work |
| 65 | the call cannot be read here; nothing was run |
| 73 | the answer cannot be written |
| 75 | nobody waits any more; the function was cancelled and did not end |
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from flowstone.engine.remote.perform import calls_here, cancel_all, logged, perform

ANSWERED, USAGE, UNREADABLE, UNWRITABLE, NOBODY_WAITS = 0, 64, 65, 73, 75

_ALONE_SECONDS = 10.0
_LOG_SECONDS = 0.5
_MAX_REASON = 1_000


def main(arguments: Sequence[str]) -> int:
    """Run one call and return the exit code.

    Args:
        arguments: as on the command line.
    """
    words = [word for word in arguments if word != "--lifeline"]
    lifeline = len(words) < len(arguments)
    if len(words) != 2 or any(word.startswith("-") and word != "-" for word in words):
        return _say(USAGE, "usage: python -m flowstone.remote CALL ANSWER [--lifeline]")
    call, answer = words
    if lifeline and call == "-":
        return _say(USAGE, "--lifeline: standard input carries the call already; give the call as a file")
    faulthandler.enable()
    # records travel with the answer; on standard error, which is kept as well, they would appear a second time
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        payload = sys.stdin.buffer.read() if call == "-" else Path(call).read_bytes()
    except OSError as error:
        return _say(UNREADABLE, f"the call {call} cannot be read: {error}")
    target = _answer_descriptor() if answer == "-" else None
    with suppress(Exception):  # lines reach whoever waits as they are written
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if lifeline:
        threading.Thread(target=_listen, name="flowstone-lifeline", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: cancel_all("the process was asked to end"))
    over = threading.Event()
    if target is None:
        threading.Thread(target=_send_log, args=(Path(f"{answer}.log"), over), daemon=True).start()
    try:
        written = perform(payload, prints=False)
    except ValueError as error:
        return _say(UNREADABLE, f"the call cannot be used: {error}")
    finally:
        over.set()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # user code may have closed or replaced them
            stream.flush()
    try:
        _write(written, target if target is not None else Path(answer))
    except OSError as error:
        return _say(UNWRITABLE, f"the answer {answer} cannot be written: {error}")
    return ANSWERED


def _say(code: int, text: str) -> int:
    print(f"flowstone.remote: {text}", file=sys.stderr)  # noqa: T201 - a program that speaks to its starter
    return code


def _answer_descriptor() -> int:
    """Take standard output for the answer; what is printed goes to standard error."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return kept


def _write(written: bytes, target: Path | int) -> None:
    """Write the answer; a file appears whole or not at all."""
    if isinstance(target, int):
        with os.fdopen(target, "wb") as file:
            file.write(written)
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with beside.open("xb") as file:
            beside.chmod(0o600)
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _send_log(path: Path, over: threading.Event) -> None:
    """Append what the call logs to a file: each time its length, and as many bytes."""
    sent = 0
    while not over.wait(_LOG_SECONDS):
        for key in calls_here():  # there is one, once it has begun
            while (batch := logged(key, sent)) is not None:
                sent, entries = batch
                try:
                    with open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                        file.write(len(entries).to_bytes(4) + entries)
                except OSError:
                    return  # the answer has it too


def _listen() -> None:
    """Cancel when a line comes on standard input, and leave some time after it was closed."""
    while True:
        line = sys.stdin.buffer.readline(_MAX_REASON)
        if not line:
            break
        cancel_all(line.decode("utf-8", "replace").strip() or "cancelled")
    cancel_all("nobody waits any more")
    time.sleep(_ALONE_SECONDS)
    os._exit(NOBODY_WAITS)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # threads that user code left behind hold nobody up
