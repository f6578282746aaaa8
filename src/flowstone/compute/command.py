"""Calls by way of a command: a container, a job of Slurm, another machine by ssh; see `flowstone.remote`."""

from __future__ import annotations

import codecs
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

from flowstone.compute.cluster import DeclaredCompute
from flowstone.core.clean import plain_text
from flowstone.core.declaring import named_values, shown
from flowstone.core.forks import renew_after_fork
from flowstone.errors import ComputeLostError, ConfigurationError, OptionsError, did_you_mean, join_names
from flowstone.protocols import Code, ComputeCall, Values

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_GIVEN = frozenset({"call", "answer", "key", "asset"})
_TAIL = 4096
_CHUNK = 65536
_MAX_LOG = 16 * 1024 * 1024
_IDLE_SECONDS = 5.0
_LOG_SECONDS = 0.5
_POLL_SECONDS = 0.05
_CANCEL_SECONDS = 60.0
_MEANING = {
    64: "the command line is not what flowstone.remote takes",
    65: "the call cannot be read there",
    73: "the answer cannot be written there",
    75: "it ended because its standard input was closed",
    126: "the program cannot be executed",
    127: "there is no such program",
    137: "killed, usually for want of memory",
}


class CommandCompute(DeclaredCompute):
    """Calls each function by a command of its own, which ends in `python -m flowstone.remote`.

    In the command, `{call}` and `{answer}` are paths of two files, `{key}` is unique, `{asset}` the name of the
    asset; any other name in braces is an option, given here or by `@asset(compute_options={...})`.

    Its standard input stays open as long as the worker waits. With `--lifeline`, `flowstone.remote` listens to it:
    a cancel comes that way, and when it is closed because the worker died, the call ends.

    Args:
        command: program and arguments, or one text that is split like in a shell (no shell runs it).
        options: values of options for assets that give none.
        cancel: a command that cancels a call which does not listen, such as `scancel --name {key}`.
        directory: where the two files lie, for commands on other machines; a private one of this machine by
            default.
        environment: variables for the command, on top of those of this process.
        code: see `flowstone.protocols.Code`; as are `values`.
        values: "remote" when the command sees the storage of the worker under the same name, else "local".

    Raises:
        ConfigurationError: an argument cannot work.

    Example:
        >>> podman = CommandCompute(
        ...     "podman run --rm -i -v {files}:{files} {image} "
        ...     "python -m flowstone.remote {call} {answer} --lifeline",
        ...     options={"image": "example.org/etl:7", "files": "/srv/calls"},
        ...     directory="/srv/calls",
        ... )
        >>> podman.check({"image": "example.org/etl:8"})
    """

    def __init__(
        self,
        command: str | Sequence[str],
        *,
        options: Mapping[str, object] | None = None,
        cancel: str | Sequence[str] = (),
        directory: Path | str | None = None,
        environment: Mapping[str, str] | None = None,
        code: Code = "reference",
        values: Values = "remote",
    ) -> None:
        super().__init__(code, values)
        self._command = _words("command", command)
        self._cancel = _words("cancel", cancel) if cancel else []
        if not self._command:
            raise ConfigurationError("CommandCompute(command=...): give the program and its arguments.")
        self._names = frozenset(_names([*self._command, *self._cancel]))
        for name in ("call", "answer"):
            if name not in _names(self._command):
                raise ConfigurationError(
                    f"CommandCompute(command=...): {{{name}}} stands nowhere in it, so that the {name} cannot "
                    "travel; "
                    "end it with: python -m flowstone.remote {call} {answer} --lifeline"
                )
        given, variables = named_values(options or {}), named_values(environment or {})
        if given is None:
            raise ConfigurationError("CommandCompute(options=...): give values by the name of their option.")
        if variables is None or not all(type(value) is str for value in variables.values()):
            raise ConfigurationError("CommandCompute(environment=...): give texts by the names of variables.")
        place: object = directory
        if place is not None and not isinstance(place, str | os.PathLike):
            raise ConfigurationError(f"CommandCompute(directory={shown(place)}): give a directory.")
        self._options = {name: str(value) for name, value in given.items()}
        if unknown := sorted(self._options.keys() - (self._names - _GIVEN)):
            raise ConfigurationError(
                f"CommandCompute(options={{{unknown[0]!r}: ...}}): {{{unknown[0]}}} stands nowhere in the command."
            )
        self._directory = None if directory is None else Path(directory).absolute()
        self._environment = variables
        self._watch = _Watch()

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options that the command does not have, and options without a value.

        Raises:
            OptionsError: names the option.
        """
        known = self._names - _GIVEN
        for name, value in options.items():
            if name not in known:
                listed = f" Its options: {join_names(sorted(known))}." if known else " It has none."
                raise OptionsError(
                    f"the command has no option {name!r}.{did_you_mean(name, known)}{listed} An option is a "
                    "name in "
                    "braces in it."
                )
            if not isinstance(value, str | int | float) or "\0" in str(value):
                raise OptionsError(f"the option {name!r} is {shown(value)}: give text or a number")
        if absent := sorted(known - options.keys() - self._options.keys()):
            raise OptionsError(
                f"the command needs the option {absent[0]!r}: compute_options={{{absent[0]!r}: ...}}"
            )

    def submit(self, call: ComputeCall) -> _Running:
        """Start the command.

        Raises:
            ComputeLostError: it cannot be started.
        """
        try:
            directory = Path(tempfile.mkdtemp(prefix=f"flowstone-{call.key}-", dir=self._directory))
        except OSError as error:
            why = f"the directory for its files cannot be made: {error}"
            raise ComputeLostError(call.asset, "a command", why) from error
        try:
            given = {"call": str(directory / "call"), "answer": str(directory / "answer")}
            given |= {"key": call.key, "asset": call.asset}
            given = self._options | {name: str(value) for name, value in call.options.items()} | given
            _write_private(directory / "call", call.payload)
            command = [_filled(word, given) for word in self._command]
            process = subprocess.Popen(  # noqa: S603 - the command of whoever made the app
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=os.environ | self._environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            shutil.rmtree(directory, ignore_errors=True)
            what = shlex.join(self._command)
            raise ComputeLostError(call.asset, f"the command {what}", f"it cannot be started: {error}") from error
        running = _Running(call, process, directory, command, [_filled(word, given) for word in self._cancel])
        self._watch.add(running)
        return running

    def close(self) -> None:
        """End what still runs."""
        self._watch.close()

    def diagnose(self) -> Iterator[tuple[Literal["ok", "warn", "fail"], str, str]]:
        """Yield whether the program is there."""
        program = self._command[0]
        if _PLACEHOLDER.search(program) or shutil.which(program):
            yield "ok", f"the command {shlex.join(self._command)}", ""
        else:
            yield "fail", f"there is no program {program!r}", "Install it, or put it on the PATH of the workers."


class _Running:
    """One command that was started."""

    def __init__(
        self,
        call: ComputeCall,
        process: subprocess.Popen[bytes],
        directory: Path,
        command: Sequence[str],
        cancel: Sequence[str],
    ) -> None:
        self.call = call
        self.process = process
        self.pidfd = _open_pidfd(process.pid)
        self.over = threading.Event()
        self._directory = directory
        self._command = command
        self._cancel = cancel
        self._log_read = 0
        self._stdin = threading.Lock()
        self._tail: deque[str] = deque(maxlen=64)
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {"stdout": decoder("replace"), "stderr": decoder("replace")}

    def answer(self) -> bytes | None:
        """Return what the command wrote, once it is over."""
        if not self.over.is_set():
            return None
        try:
            return (self._directory / "answer").read_bytes()
        except OSError:
            raise ComputeLostError(
                self.call.asset, f"the command {shlex.join(self._command)}", self._why()
            ) from None

    def waits_for(self) -> None:
        """Nobody knows: a command may wait for a place in a queue, and says so itself."""

    def cancel(self, reason: str) -> None:
        """Write the reason to its standard input, and run the command that cancels, if there is one."""
        with self._stdin, suppress(OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.write(plain_text(reason).replace("\n", " ").encode() + b"\n")
        if self._cancel:
            threading.Thread(target=self._run_cancel, name="flowstone-cancel", daemon=True).start()

    def release(self) -> None:
        """End it if it still runs, and delete its files."""
        if not self.over.is_set():
            self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def kill(self) -> None:
        """Close its standard input, and end it with all of its process group."""
        with self._stdin, suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        if self.process.returncode is None:  # not reaped, so that its id is still its own
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def wrote(self, stream: Literal["stdout", "stderr"], written: bytes) -> None:
        """Take what it wrote."""
        text = self._decoders[stream].decode(written)
        if stream == "stderr":
            self._tail.append(text[-_TAIL:])
        self.call.printed(stream, text)

    def read_log(self) -> None:
        """Take what it logged since the last time, as far as that is written whole."""
        with suppress(OSError), (self._directory / "answer.log").open("rb") as file:
            file.seek(self._log_read)
            written = file.read(_MAX_LOG)
            while len(written) >= 4 and len(written) >= (end := 4 + int.from_bytes(written[:4])):
                self.call.arrived(written[4:end])
                self._log_read += end
                written = written[end:]

    def ended(self) -> None:
        """Note that it is over."""
        self.process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what it left behind
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(OSError):
                assert file is not None
                file.close()
        if self.pidfd is not None:
            os.close(self.pidfd)
        self.over.set()
        self.call.wake()

    def _why(self) -> str:
        code = self.process.returncode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        meaning = f" ({_MEANING[code]})" if code in _MEANING else ""
        tail = "".join(self._tail)[-_TAIL:].rstrip()
        return f"it ended without one, {how}{meaning}." + (
            f"\nThe last lines of its stderr:\n{tail}" if tail else ""
        )

    def _run_cancel(self) -> None:
        try:
            subprocess.run(self._cancel, timeout=_CANCEL_SECONDS, capture_output=True, check=True)  # noqa: S603
        except (OSError, subprocess.SubprocessError) as error:
            self.call.printed("stderr", f"The command that cancels failed: {error}\n")


class _Watch:
    """One thread that reads what all commands write and notices their ends."""

    def __init__(self) -> None:
        self._renew()
        renew_after_fork(self, _Watch._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._new: list[_Running] = []
        self._running: set[_Running] = set()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._wake_in, self._wake_out = -1, -1

    def add(self, running: _Running) -> None:
        """Watch a command until it is over."""
        with self._lock:
            self._new.append(running)
            self._running.add(running)
            if self._thread is None:
                self._wake_in, self._wake_out = os.pipe()
                os.set_blocking(self._wake_out, False)
                self._thread = threading.Thread(target=self._serve, name="flowstone-commands", daemon=True)
                self._thread.start()
            else:
                self._wake()

    def close(self) -> None:
        """End every command; whoever waits for one learns of it."""
        with self._lock:
            running = list(self._running)
        for one in running:
            one.kill()
        for one in running:
            one.over.wait(_IDLE_SECONDS)
        with self._lock:
            thread, self._closing = self._thread, True
            if thread is not None:
                self._wake()
        if thread is not None:
            thread.join(_IDLE_SECONDS)
        self._closing = False

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake_out, b".")

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_in, selectors.EVENT_READ, None)
            read_logs_at = 0.0
            while True:
                self._take_new(selector)
                blind = any(one.pidfd is None for one in self._running)
                pause = _LOG_SECONDS if self._running else _IDLE_SECONDS
                ready = selector.select(_POLL_SECONDS if blind else pause)
                for key, _ in ready:
                    if key.data is None:
                        os.read(self._wake_in, _CHUNK)
                    elif key.data[1] != "end":
                        _read(selector, *key.data)
                for one in list(self._running):
                    if one.process.poll() is not None:
                        self._end(selector, one)
                if time.monotonic() >= read_logs_at:
                    read_logs_at = time.monotonic() + _LOG_SECONDS
                    for one in list(self._running):
                        one.read_log()
                with self._lock:
                    if not self._running and not self._new and (self._closing or not ready):
                        os.close(self._wake_in)
                        os.close(self._wake_out)
                        self._thread = None
                        return

    def _take_new(self, selector: selectors.BaseSelector) -> None:
        with self._lock:
            new, self._new = self._new, []
        for one in new:
            for stream, name in ((one.process.stdout, "stdout"), (one.process.stderr, "stderr")):
                assert stream is not None
                os.set_blocking(stream.fileno(), False)
                selector.register(stream, selectors.EVENT_READ, (one, name, stream))
            if one.pidfd is not None:
                selector.register(one.pidfd, selectors.EVENT_READ, (one, "end", None))

    def _end(self, selector: selectors.BaseSelector, one: _Running) -> None:
        for stream, name in ((one.process.stdout, "stdout"), (one.process.stderr, "stderr")):
            assert stream is not None
            while not stream.closed and stream in selector.get_map() and _read(selector, one, name, stream):
                pass
            with suppress(KeyError, ValueError):
                selector.unregister(stream)
        if one.pidfd is not None:
            with suppress(KeyError):
                selector.unregister(one.pidfd)
        with self._lock:
            self._running.discard(one)
        one.ended()


def _read(selector: selectors.BaseSelector, one: _Running, name: Any, stream: IO[bytes]) -> bool:
    """Read what there is, once; return whether there may be more."""
    try:
        written = os.read(stream.fileno(), _CHUNK)
    except BlockingIOError:
        return False
    except OSError:
        written = b""
    if not written:
        with suppress(KeyError):
            selector.unregister(stream)
        return False
    one.wrote(name, written)
    return True


def _words(option: str, given: object) -> list[str]:
    words = shlex.split(given) if isinstance(given, str) else given
    if not isinstance(words, list | tuple) or not all(
        isinstance(word, str) and "\0" not in word for word in words
    ):
        raise ConfigurationError(f"CommandCompute({option}={shown(given)}): give a list of words, or one text.")
    return list(words)


def _names(words: Sequence[str]) -> list[str]:
    return [name for word in words for name in _PLACEHOLDER.findall(word)]


def _filled(word: str, given: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: given[found[1]], word)


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _open_pidfd(pid: int) -> int | None:
    with suppress(AttributeError, OSError):  # another system, an old kernel, a sandbox
        return os.pidfd_open(pid)
    return None
