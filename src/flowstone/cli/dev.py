"""`dev`: database, pages and a worker in one terminal; with `--reload`, restarted when the code changes.

`dev` itself never imports the user's code: its parts are processes, which is why a file that cannot be imported
ends none of them. Read `dev`, then `Part` (one process and what it writes) and `Watched` (the files).
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Self

import typer

from flowstone.cli.calls import FAILED
from flowstone.cli.known_names import offers
from flowstone.cli.output import one_line
from flowstone.cli.session import Session
from flowstone.config import Settings
from flowstone.core.clean import clean_text
from flowstone.core.project import Project

_POLL_SECONDS = 0.1
_WEB_SECONDS = 15.0
_WEB_READY = "Dashboard: "
_QUIET_SECONDS = 0.3  # that files have to stand still: an editor or a checkout writes several
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"})
_MAX_FILES = 5_000
_SETTINGS_FILES = ("flowstone.toml", "pyproject.toml")
_WEB_PACKAGES = ("starlette", "jinja2", "uvicorn")
_COLOURS = {"dev": "bold", "worker": "cyan", "web": "magenta", "check": "yellow"}
_NAME_WIDTH = 6

Queues = Annotated[
    list[str] | None,
    typer.Option(
        "--queue",
        metavar="NAME[=LIMIT]",
        help="A queue to work on and how many steps at once.",
        autocompletion=offers("queues"),
    ),
]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", min=1, help="Steps at once on each queue that is given no limit.")
]


def dev(
    session: Session,
    *,
    queues: Queues = None,
    concurrency: Concurrency = None,
    automation: Annotated[
        bool, typer.Option("--automation", help="Start schedules, sensors and conditions by themselves as well.")
    ] = False,
    web: Annotated[bool, typer.Option("--web/--no-web", help="Serve the pages.")] = True,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port of the pages; 0 for any that is free.")
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart worker and pages when a file of the project changes.")
    ] = False,
) -> int:
    """Start the embedded PostgreSQL, the pages and one worker, in one terminal; Ctrl-C stops it all.

    With --reload a changed file is imported on trial first: when that fails its error is shown and the old worker
    goes on; else a new one starts, and the old one ends when the steps that it runs are over.
    """
    settings = session.settings
    target, directory = session.target, session.app_dir.absolute()
    common = ["--app", target, "--app-dir", str(directory), *(["--verbose"] if session.given.verbose else [])]
    worker = [
        "worker",
        *common,
        *(word for queue in queues or () for word in ("--queue", queue)),
        *([] if concurrency is None else ["--concurrency", str(concurrency)]),
        "--automation" if automation else "--no-automation",
    ]
    pages = ["web", *common, *([] if port is None else ["--port", str(port)])]
    place = embedded_directory(settings)
    environment = {"FLOWSTONE_DATABASE_URL": f"embedded:{place}", "FLOWSTONE_PROJECT": settings.project}
    grace = settings.grace_seconds + 20.0
    with interruptible(), Parts(session, environment=environment, grace_seconds=grace) as parts:
        if web and (lacking := _lacks_web()):
            parts.say(f"No pages: {lacking}")
        elif web:
            parts.start("web", pages)  # imports the app while the server comes up
        with _server(place, settings.project) as dsn:
            parts.wait_for("web", _WEB_SECONDS)  # which people wait for: a worker that loads would slow it down
            parts.start("worker", worker)
            _announce(session, dsn, parts)
            try:
                return _watch(parts, Watched(directory) if reload else None, common)
            finally:
                parts.stop()  # before the server


def embedded_directory(settings: Settings) -> Path:
    """Return where the embedded database of these settings lies."""
    kind, _, place = (settings.database_url or "").partition(":")
    if kind == "embedded" and place:
        return Path(place).absolute()
    return Path(settings.storage).absolute() / "postgres"


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT end the block: shells start background commands of scripts with SIGINT ignored.

    Whoever sends it to us means it all the same.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)


@contextmanager
def _server(place: Path, project: str) -> Iterator[str]:
    """Start the embedded server and bring its tables up to date."""
    # loaded only now: the pages, which a person waits for, begin to load before us
    server = import_module("flowstone.stores.postgres.embedded.server").EmbeddedPostgres(place)
    with ThreadPoolExecutor(max_workers=1) as pool:
        starting = pool.submit(server.start)
        store = import_module("flowstone.stores.postgres.store")  # while initdb is at work
    try:
        dsn = starting.result()
        store.upgrade(store.Database(dsn, project=Project(project)))
        yield dsn
    finally:
        server.stop()


def _lacks_web() -> str:
    """Return why there are no pages here; empty when there are."""
    lacking = [name for name in _WEB_PACKAGES if importlib.util.find_spec(name) is None]
    if not lacking:
        return ""
    are = "is" if len(lacking) == 1 else "are"
    return f"{' and '.join(lacking)} {are} not installed; `pip install 'flowstone[web]'` adds them."


def _announce(session: Session, dsn: str, parts: Parts) -> None:
    if session.out.as_json:
        session.out.json({"database_url": dsn, "workers": parts.pids("worker"), "web": parts.pids("web")})
        return
    parts.say("PostgreSQL is up. In another terminal:")
    parts.say(f"  export FLOWSTONE_DATABASE_URL={shlex.quote(dsn)}")
    parts.say(f"  flowstone materialize +NAME --app {session.target}")
    parts.say("Ctrl-C stops all of it.")


def _watch(parts: Parts, watched: Watched | None, common: Sequence[str]) -> int:
    """Wait until a part ends, or for ever with `--reload`; restart what runs when files change."""
    reported: set[int] = set()
    while True:
        for part in parts.ended():
            if part.pid in reported:
                continue
            reported.add(part.pid)
            parts.say(f"The {part.name} ended with code {part.code}.")
            if watched is None:
                return part.code if part.code > 0 else FAILED
            parts.say("It is started again when a file changes.")
        if watched is not None and (changed := watched.changed()):
            _reload(parts, watched, changed, common)
        time.sleep(_POLL_SECONDS)


def _reload(parts: Parts, watched: Watched, changed: Path, common: Sequence[str]) -> None:
    parts.say(f"{one_line(str(changed))} changed.")
    problem = parts.try_out(["check", *common])
    if problem is not None:
        for line in problem.splitlines():
            parts.write("check", line)
        parts.say("What runs goes on with the code from before; the next change is tried again.")
        return
    parts.restart()


class Watched:
    """The Python files of a project, and its settings files: when one is new, changed or gone.

    The modification times of up to 5,000 files are read a few times a second, which is a few milliseconds for a
    project of usual size; a library that asks the kernel would be one more dependency for that.

    Args:
        directory: where the project lies; hidden directories and those of installed packages are left out.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known = self._read()
        self._pending: tuple[float, Path] | None = None
        self._next = 0.0

    def changed(self) -> Path | None:
        """Return a file that changed, once all have stood still for a moment."""
        now = time.monotonic()
        if now < self._next:
            return None
        self._next = now + _QUIET_SECONDS
        found = self._read()
        differing = [
            path for path in found.keys() | self._known.keys() if found.get(path) != self._known.get(path)
        ]
        self._known = found
        if differing:
            self._pending = (now, min(differing))
            return None
        if self._pending is not None and now - self._pending[0] >= _QUIET_SECONDS:
            path, self._pending = self._pending[1], None
            return path.relative_to(self._directory) if path.is_relative_to(self._directory) else path
        return None

    def _read(self) -> dict[Path, tuple[int, int]]:
        found: dict[Path, tuple[int, int]] = {}
        waiting = [str(self._directory)]
        while waiting and len(found) < _MAX_FILES:
            with suppress(OSError), os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name in _SKIPPED:
                        continue
                    with suppress(OSError):
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        elif entry.name.endswith(".py") or entry.name in _SETTINGS_FILES:
                            state = entry.stat()
                            found[Path(entry.path)] = (state.st_mtime_ns, state.st_size)
        return found


class Part:
    """One process, whose lines are written with its name in front.

    Args:
        name: what it is.
        command: its program and arguments.
        environment: all of it.
        write: takes name and line.
    """

    def __init__(self, name: str, command: Sequence[str], *, environment: Mapping[str, str], write: Any) -> None:
        self.name = name
        self.is_ready = threading.Event()
        # a session of its own: Ctrl-C goes to us alone, and we stop them in order
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        self._reader = threading.Thread(target=self._pass_on, args=(write,), name=f"output of {name}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int:
        """Its exit code, once it is over."""
        return self._process.returncode or 0

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def ask_to_stop(self) -> None:
        """Send SIGTERM, after which a worker finishes what it runs."""
        if not self.is_over:
            self._process.terminate()

    def end(self, seconds: float) -> None:
        """Wait for the end, and kill it after that time; its last lines are written."""
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.1, seconds))
        finally:  # also when a second Ctrl-C ends the patience
            if not self.is_over:
                self._process.kill()
                self._process.wait()
        self._reader.join(1.0)

    def _pass_on(self, write: Any) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                write(self.name, text)
                if text.startswith(_WEB_READY):
                    self.is_ready.set()


class Parts:
    """The processes of `dev`; leaving the block stops them.

    Args:
        session: whose standard error takes what they write.
        environment: variables on top of those of this process.
        grace_seconds: how long they get to end after SIGTERM.
    """

    def __init__(self, session: Session, *, environment: Mapping[str, str], grace_seconds: float) -> None:
        self._environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
        self._grace = grace_seconds
        self._lock = threading.Lock()
        self._console = session.out.stderr_console()
        self._running: list[Part] = []
        self._leaving: list[Part] = []
        self._arguments: dict[str, Sequence[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, arguments: Sequence[str]) -> None:
        """Start `flowstone ARGUMENTS` under a name."""
        self._arguments[name] = arguments
        command = [sys.executable, "-m", "flowstone", *arguments]
        self._running.append(Part(name, command, environment=self._environment, write=self.write))

    def wait_for(self, name: str, seconds: float) -> None:
        """Wait until a part reports its address, or is over; not longer than so many seconds."""
        deadline = time.monotonic() + seconds
        for part in self._running:
            while part.name == name and not part.is_over and time.monotonic() < deadline:
                if part.is_ready.wait(_POLL_SECONDS):
                    break

    def restart(self) -> None:
        """Start each part anew; the old workers end when what they run is over, beside the new ones."""
        old, self._running = self._running, []
        for part in old:
            part.ask_to_stop()
            if part.name == "web":
                part.end(5.0)  # the new one takes its port
        self._leaving = [part for part in (*self._leaving, *old) if not part.is_over]
        for name, arguments in self._arguments.items():
            self.start(name, arguments)

    def try_out(self, arguments: Sequence[str]) -> str | None:
        """Run `flowstone ARGUMENTS` to its end; return what it wrote when it failed, else None."""
        command = [sys.executable, "-m", "flowstone", *arguments]
        done = subprocess.run(  # noqa: S603 - our own program
            command, env=self._environment, capture_output=True, text=True, errors="replace", check=False
        )
        return None if done.returncode == 0 else (done.stderr or done.stdout).strip()

    def ended(self) -> list[Part]:
        """Return the parts that ended although nobody stopped them."""
        self._leaving = [part for part in self._leaving if not part.is_over]
        return [part for part in self._running if part.is_over]

    def pids(self, name: str) -> list[int]:
        """Return the process ids under a name."""
        return [part.pid for part in self._running if part.name == name]

    def stop(self) -> None:
        """Ask all to stop, wait for the grace, then kill; stopping twice is no error."""
        parts = [*self._running, *self._leaving]
        try:
            for part in parts:
                part.ask_to_stop()
        finally:
            deadline = time.monotonic() + self._grace
            for index, part in enumerate(parts):
                try:
                    part.end(deadline - time.monotonic())
                except BaseException:
                    for other in parts[index:]:
                        other.end(0.0)
                    raise
            self._running, self._leaving = [], []

    def say(self, text: str) -> None:
        """Write a line of `dev` itself."""
        self.write("dev", text)

    def write(self, name: str, line: str) -> None:
        """Write a line under a name, in its colour where there are colours."""
        with self._lock:
            self._console.print(name.ljust(_NAME_WIDTH) + " │ ", style=_COLOURS.get(name), end="")
            self._console.print(clean_text(line), soft_wrap=True)
