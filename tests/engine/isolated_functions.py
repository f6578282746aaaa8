"""Assets that run in processes of their own; the child imports this file."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import functools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from flowstone.core.asset import asset
from flowstone.core.context import AssetContext
from flowstone.core.definition import StaticPartitions
from flowstone.core.outcome import RetryLater, Skip


class OddError(Exception):
    """Plain pickle cannot rebuild this one: `__init__` takes something else than `args`."""

    def __init__(self, code: int, *, hint: str) -> None:
        self.code = code
        self.hint = hint
        super().__init__(f"code {code}, {hint}")


class OddOSError(OSError):
    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(2, "no such thing", path)


class LockedError(Exception):
    """Cannot be pickled at all."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


@asset
def pid() -> int:
    return os.getpid()


@asset
def doubled(numbers: Any) -> Any:
    return numbers * 2


@asset
def facts(context: AssetContext) -> dict[str, Any]:
    context.metadata["rows"] = 3
    return {
        "asset": context.asset.name,
        "partition": context.partition,
        "key": context.key,
        "run_id": context.run_id,
        "step_id": context.step_id,
        "attempt": context.attempt,
        "token": context.token,
        "started_at": context.started_at,
        "inputs": context.inputs,
        "metadata": dict(context.metadata),
        "cancelled": context.cancellation.is_cancelled,
    }


@asset(requires=["good", "bad"])
def uses_resources(context: AssetContext, which: str) -> Any:
    return sorted(context.resources), context.resources[which]


@asset
def logs(context: AssetContext) -> None:
    context.logger.info("rows: %d", 7, extra={"lock": threading.Lock()})
    logging.getLogger("some.library").debug("too fine")
    try:
        raise ValueError("inner")
    except ValueError:
        logging.getLogger("some.library").exception("it broke")


@asset
async def awaited(numbers: list[int]) -> int:
    await asyncio.sleep(0)
    return sum(numbers)


@asset
def raises(kind: str) -> None:
    if kind == "odd":
        raise OddError(7, hint="rewind")
    if kind == "os":
        raise OddOSError("x.csv")
    if kind == "locked":
        raise LockedError("held")
    if kind == "group":
        raise ExceptionGroup("both", [OddError(1, hint="a"), ValueError("b")])
    if kind == "exit":
        sys.exit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "chained":
        try:
            _ = {}["missing"]
        except KeyError as error:
            raise ValueError("outer") from error
    if kind == "skip":
        raise Skip("nothing new")
    raise ValueError(kind)


@asset
def later() -> RetryLater:
    return RetryLater(5, "not there yet")


@asset
def unpicklable() -> Any:
    return threading.Lock()


@asset
def bad_metadata(context: AssetContext) -> None:
    context.metadata["lock"] = threading.Lock()  # type: ignore[assignment]


@asset
def crashes(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os.write(2, b"the library gave up\n")
        os._exit(9)
    else:
        os.kill(os.getpid(), getattr(signal, how))


@asset
def hangs_in_c() -> None:
    # PyDLL keeps the interpreter lock: nothing in the process runs until it returns
    ctypes.PyDLL(None).sleep(600)


@asset
def leaves_grandchild(path: str, crash: bool) -> None:
    # it inherits every descriptor and so keeps the conversation open
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
    Path(path).write_text(str(grandchild.pid))
    if crash:
        os._exit(4)
    time.sleep(600)


@asset
def forks() -> int:
    if os.fork() == 0:
        raise RuntimeError("the copy must not answer")
    os.wait()
    return 1


@asset
def stops_politely(context: AssetContext, started: str) -> str | None:
    Path(started).touch()
    context.cancellation.wait(60)
    return context.cancellation.reason


@asset
def stops_never(started: str) -> None:
    Path(started).touch()
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(600)


@asset
def spins(seconds: float) -> int:
    until = time.process_time() + seconds
    rounds = 0
    while time.process_time() < until:
        rounds += 1
    return rounds


@asset
def directory() -> str:
    return str(Path.cwd())


@asset
def talks() -> None:
    print("said on stdout")
    print("said on stderr", file=sys.stderr)


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return ["traced", function(*args, **kwargs)]

    return wrapper


@asset
@traced
def wrapped_inside(n: int) -> int:
    return n


@traced
@asset
def wrapped_outside(n: int) -> int:
    return n


def plain(n: int) -> int:
    return n + 1


renamed = asset(name="other name")(plain)


def make(factor: int) -> Any:
    @asset(name=f"times_{factor}")
    def multiply(n: int) -> int:
        return n * factor

    return multiply


times_three = make(3)


class Methods:
    @staticmethod
    @asset
    def static(n: int) -> int:
        return -n


@asset(isolation="process")
def says_much(context: AssetContext) -> None:
    print("printed")
    print("to stderr", file=sys.stderr)
    context.logger.info("logged %d", 1)
    context.logger.debug("too fine")
    os.system("echo of a subprocess")
    for number in range(100):
        print(f"\r{number} %", end="")
    print()
    logging.getLogger("a.library").warning("of a library")
    os.write(1, "half a line ü".encode()[:-1])
    os.write(1, "ü".encode()[-1:])


@asset(isolation="process")
def says_and_dies() -> None:
    print("last words")
    os.abort()


class WhoSerializer:
    """Writes texts with the processes that write and read them; does in the child what the text says."""

    name = "who"
    extension = ".who"

    def __init__(self) -> None:
        self.made_in = os.getpid()

    def accepts(self, value: object) -> bool:
        return isinstance(value, str)

    def write(self, value: object, file: BinaryIO) -> None:
        text = str(value)
        here = os.getpid() == self.made_in
        if not here and text.startswith("full"):
            raise OSError(errno.ENOSPC, "no space left")
        if not here and text.startswith("slow"):
            time.sleep(1.2)
        file.write(b"x" * 200_000)
        if text.startswith("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        file.write(f"{os.getpid()} {text}".encode())

    def read(self, file: BinaryIO) -> object:
        return f"{os.getpid()} {file.read()[200_000:].decode()}"


@asset(isolation="process", io="who")
def who_made(context: AssetContext) -> str:
    context.metadata["pid"] = os.getpid()
    return "made"


@asset(isolation="process")
def who_read(who_made: str) -> str:
    return f"{os.getpid()} {who_made}"


@asset(isolation="process", io="who")
def full() -> str:
    return "full"


@asset(isolation="process", io="who", timeout=1.0)
def slow() -> str:
    return "slow"


@asset(isolation="process", io="who")
def dies() -> str:
    return "dies"


@asset(isolation="process", io="who")
def once() -> object:
    return iter("once")


@asset(isolation="process", io="who", partitions=StaticPartitions(["1", "2", "3"]))
def by_day(context: AssetContext) -> str:
    return context.key


@asset(isolation="process")
def all_days(by_day: dict[str, str]) -> tuple[int, dict[str, str]]:
    return os.getpid(), by_day
