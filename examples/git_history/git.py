"""Running git on a repository that is not trusted, so that no configuration changes or runs anything.

The history is read through an empty private git directory whose object store is that of the analysed
repository (`GIT_OBJECT_DIRECTORY`). So there is nothing to switch off one by one: no configuration, no
attributes, no hooks, filters, text converters or external diffs, no replace refs, grafts, mail map or
promisor remotes of the analysed repository are ever seen. Only finding the repository and its HEAD uses its
own configuration, with commands that read neither objects nor the index.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import IO

from git_history.errors import GitCommandError, GitUnavailableError

_CHUNK = 1 << 16  # bytes, the size of a pipe on Linux
_NEUTRAL = (
    *("-c", "safe.directory=*"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.attributesFile=/dev/null"),
    *("-c", "core.quotepath=off"),
    *("-c", "log.showSignature=false"),
    "--no-replace-objects",
    "--no-pager",
)


def environment() -> dict[str, str]:
    """Return the environment for every git process: the caller's, without anything that steers git.

    Returns:
        A copy of `os.environ` without `GIT_*` and with user and system configuration, prompts, locks, lazy
        fetches and translations off.

    Example:
        >>> environment()["LC_ALL"]
        'C'
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return inherited | {
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "",
    }


def ask(path: Path, arguments: Sequence[str]) -> tuple[int, bytes, str]:
    """Run one short git command inside a directory of the analysed repository.

    Args:
        path: an existing directory.
        arguments: subcommand and options; must not touch objects, index or work tree.

    Returns:
        Exit code, standard output without its final newline, and the last line of standard error.

    Raises:
        GitUnavailableError: git is not installed.
    """
    command = ["git", *_NEUTRAL, "-C", str(path), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, env=environment(), stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError:
        raise GitUnavailableError from None
    return done.returncode, done.stdout.removesuffix(b"\n"), _last_line(done.stderr)


def stream(
    objects: Path, arguments: Sequence[str], *, given: bytes = b"", separator: bytes = b"\0"
) -> Iterator[bytes]:
    """Run a git command on an object store and yield its output piece by piece, in bounded memory.

    Closing the iterator early ends the git process.

    Args:
        objects: the `objects` directory of the analysed repository.
        arguments: subcommand and options.
        given: standard input; also names the hash: 64 hexadecimal digits in the first line mean SHA-256.
        separator: what ends each piece of output.

    Yields:
        The pieces, without separators.

    Raises:
        GitUnavailableError: git is not installed.
        GitCommandError: git failed.
    """
    with (
        tempfile.TemporaryFile() as source,
        tempfile.TemporaryFile() as problems,
        _private_git_dir(given) as private,
    ):
        source.write(given)
        source.seek(0)
        variables = environment() | {"GIT_DIR": str(private), "GIT_OBJECT_DIRECTORY": str(objects)}
        command = ["git", *_NEUTRAL, *arguments]
        try:
            process = subprocess.Popen(
                command, stdin=source, stdout=subprocess.PIPE, stderr=problems, env=variables, cwd=private
            )
        except FileNotFoundError:
            raise GitUnavailableError from None
        with _ended(process) as output:
            yield from split(output, separator)
        if process.returncode:
            problems.seek(0)
            raise GitCommandError(arguments[0], code=process.returncode, message=_last_line(problems.read()))


def split(source: IO[bytes], separator: bytes) -> Iterator[bytes]:
    r"""Yield the pieces of a byte stream between one-byte separators; a last piece may lack its separator.

    Args:
        source: what to read, in chunks.
        separator: one byte.

    Yields:
        Pieces without the separator.

    Example:
        >>> import io
        >>> list(split(io.BytesIO(b"a\0\0b\0"), b"\0"))
        [b'a', b'', b'b']
    """
    rest: list[bytes] = []  # a piece longer than a chunk is joined once, not copied for each chunk
    while chunk := source.read(_CHUNK):
        first, *others = chunk.split(separator)
        rest.append(first)
        if others:
            yield b"".join(rest)
            yield from others[:-1]
            rest = [others[-1]]
    if last := b"".join(rest):
        yield last


@contextlib.contextmanager
def _private_git_dir(given: bytes) -> Generator[Path]:
    sha256 = len(given.partition(b"\n")[0]) == 64
    version, extension = (1, "[extensions]\n\tobjectformat = sha256\n") if sha256 else (0, "")
    with tempfile.TemporaryDirectory(prefix="git-history-") as name:
        private = Path(name)
        (private / "refs").mkdir()
        (private / "HEAD").write_text("ref: refs/heads/none\n")
        (private / "config").write_text(
            f"[core]\n\trepositoryformatversion = {version}\n\tbare = true\n{extension}"
        )
        yield private


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Generator[IO[bytes]]:
    assert process.stdout is not None
    try:
        with process.stdout as output:
            yield output
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait()


def _last_line(problems: bytes) -> str:
    lines = problems.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("fatal: ")[:300] if lines else ""
