"""Figures of the house: how the code is cut, and how many of its rooms one call walks through.

    python -m tools.house           a table
    python -m tools.house --json    one JSON document, to compare two commits
    python -m tools.house --types   the types that one step and one request make on their way

What each figure is for, and what it was when this was first measured, stands in docs/architecture.md.

The types on the way are recorded while a real step and a real request go it, see `RecordedTypes`: the durable step
on a throw-away PostgreSQL, through the parts of a worker node, without the loops around them.
"""

from __future__ import annotations

import ast
import asyncio
import io
import json
import keyword
import re
import statistics
import sys
import tempfile
import threading
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from flowstone.app import FlowStone

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "flowstone"
GLOSSARY = ROOT / "docs" / "glossary.md"
NO_LONGER_IN_USE = "## No longer in use"
NOT_OURS = {
    ("src/flowstone/io/pickling.py", "tell"),
    ("src/flowstone/io/encoding.py", "tell"),
    ("src/flowstone/io/by_reference.py", "tell"),
    ("src/flowstone/core/automation/condition.py", "wanted"),
    ("src/flowstone/cli/automation.py", "wanted"),
    ("tests/io/test_serializers.py", "tell"),
    ("tools/house.py", "tell"),
    ("tools/house.py", "canceled"),
    ("tests/io/sources/test_rows.py", "canceled"),
    ("tools/house.py", "wanted"),
}
"""Old words that stay: a method of files; deprecated names, for one version."""
KEPT_NAMES = {"at_most", "at_least", "check_exact", "QueryCanceled"}
"""Names of others, and of verbs that users know, in which such a word is plain English."""

_QUEUES = {"assets": 1}

type Figures = dict[str, int | float]


def modules() -> dict[str, Path]:
    """Return the modules of the package by dotted name; a package goes by the name of its directory."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def cut(found: dict[str, Path]) -> Figures:
    """Return how the code is cut into modules and functions, and how much of it is imports."""
    lines, functions, imports = [], [], 0
    for path in found.values():
        text = path.read_text(encoding="utf-8")
        lines.append(len(text.splitlines()))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions.append((node.end_lineno or node.lineno) - node.lineno + 1)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                imports += (node.end_lineno or node.lineno) - node.lineno + 1
    tenths = statistics.quantiles(lines, n=10)
    return {
        "modules": len(lines),
        "lines": sum(lines),
        "lines of a module, median": int(statistics.median(lines)),
        "lines of a module, p90": round(tenths[8]),
        "lines of a module, most": max(lines),
        "lines of a function, median": int(statistics.median(functions)),
        "lines of a function, p90": round(statistics.quantiles(functions, n=10)[8]),
        "lines that are imports, percent": round(100 * imports / sum(lines), 1),
    }


def importers(found: dict[str, Path]) -> dict[str, set[str]]:
    """Return, for each module, the modules that import it."""
    importing: dict[str, set[str]] = defaultdict(set)
    for name, path in found.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    importing[full if full in found else node.module].add(name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    importing[alias.name].add(name)
    return {name: importing[name] - {name} for name in found}


def only_one_sibling(found: dict[str, Path]) -> list[str]:
    """Return the modules that one module of the same package imports, and nobody else."""
    return [
        name
        for name, by in importers(found).items()
        if len(by) == 1 and next(iter(by)).rpartition(".")[0] == name.rpartition(".")[0]
    ]


def positional_reads(found: dict[str, Path]) -> int:
    """Return how often a row of the database is read by number (`row[14]`)."""
    return sum(
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and (node.value.id == "row" or node.value.id.endswith("_row"))
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, int)
        for name, path in found.items()
        if ".stores." in name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


@dataclass(frozen=True)
class OldWord:
    """A word that is out of use, as the glossary lists it.

    Args:
        parts: its parts, in small letters: one, or several that follow each other in a name or in a sentence.
        word: what is said instead.
        names_only: whether it may stay in comments, texts and pages, where it is plain English.
    """

    parts: tuple[str, ...]
    word: str
    names_only: bool


def old_words() -> list[OldWord]:
    """Return the words that the glossary took out of use: the table of its last section."""
    section = GLOSSARY.read_text(encoding="utf-8").partition(NO_LONGER_IN_USE)[2] if GLOSSARY.is_file() else ""
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \| (.*?) \|$", section, re.MULTILINE)
    return [
        OldWord(tuple(word.split()), instead, where == "names")
        for words, instead, where in rows
        for word in re.findall(r"`(.+?)`", words)
    ]


def spoken() -> Iterator[Path]:
    """Return the files whose words count: not migrations, changelog and environments."""
    yield ROOT / "README.md"
    for directory in ("src", "docs", "examples", "benchmarks", "tests", "tools"):
        for path in sorted((ROOT / directory).rglob("*")):
            if path.suffix in {".py", ".sql", ".md", ".toml"} and not {"migrations", ".envs"} & {*path.parts}:
                yield path


def names_in(path: Path, text: str) -> str:
    """Return a file with everything blanked that is no name: texts, comments, and in pages all of it."""
    if path.suffix == ".sql":
        return re.sub(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", _blank, text, flags=re.DOTALL)
    if path.suffix != ".py":
        return ""
    lines: dict[int, str] = defaultdict(str)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string) and _is_ours(token.string):
            line, column = token.start
            lines[line] = lines[line].ljust(column) + token.string
    return "\n".join(lines[number] for number in range(1, max(lines, default=0) + 1))


def _is_ours(name: str) -> bool:
    return not name.startswith("test_") and name not in KEPT_NAMES


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])


def old_words_in(path: Path, words: list[OldWord]) -> list[tuple[int, OldWord]]:
    """Return where old words stand in a file: line and word, a whole word or a part of a name."""
    text = path.read_text(encoding="utf-8")
    if path == GLOSSARY:
        text = text.partition(NO_LONGER_IN_USE)[0]
    found = []
    for names_only in (False, True):
        kind = [word for word in words if word.names_only is names_only]
        found += _occurrences(names_in(path, text) if names_only else text, kind)
    return [
        (line, word) for line, word in found if (path.relative_to(ROOT).as_posix(), word.parts[0]) not in NOT_OURS
    ]


def _occurrences(text: str, words: list[OldWord]) -> Iterator[tuple[int, OldWord]]:
    by_first: dict[str, list[OldWord]] = defaultdict(list)
    for word in words:
        by_first[word.parts[0]].append(word)
    parts = list(re.finditer(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text))
    for position, part in enumerate(parts):
        for word in by_first.get(part[0].lower(), ()):
            here = parts[position : position + len(word.parts)]
            if tuple(one[0].lower() for one in here) == word.parts and _belong_together(text, here):
                yield text.count("\n", 0, part.start()) + 1, word


def _belong_together(text: str, parts: list[re.Match[str]]) -> bool:
    # a comment may go on in the next line
    return all(re.fullmatch(r"_?|-|\s+(?:(?:#|--)\s+)?", text[a.end() : b.start()]) for a, b in pairwise(parts))


def old_words_left() -> int:
    """Return how often such a word still stands in code, SQL, comments, texts, tests or pages."""
    words = old_words()
    return sum(len(old_words_in(path, words)) for path in spoken())


def walk_of_a_materialize() -> Figures:
    """Return what one in-memory `materialize` of one asset passes through: calls, files, frames."""
    from flowstone import FlowStone, asset

    calls: list[str] = []
    depth: list[int] = []

    @asset
    def measured() -> int:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename != __file__:
            depth.append(frame.f_code.co_filename.startswith(str(SOURCE)))
            frame = frame.f_back
        return 1

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(SOURCE)):
            calls.append(frame.f_code.co_filename)

    flow = FlowStone.for_testing([measured])
    flow.materialize("measured")  # what happens once does not count
    depth.clear()
    sys.setprofile(note)
    try:
        flow.materialize("measured", force=True)
    finally:
        sys.setprofile(None)
    return {
        "materialize: calls": len(calls),
        "materialize: files": len(set(calls)),
        "materialize: changes of file": sum(a != b for a, b in pairwise(calls)),
        "materialize: our frames above the function": sum(depth),
    }


class RecordedTypes:
    """Records which of our dataclasses and named tuples are made while it is entered, in every thread.

    These are the forms that a step or a request passes through. Classes that do something and are made once (a
    store, a planner), exceptions and enums are not among them. A form that only its own module knows is that
    module's affair (what a transaction adds up, the row of one statement): it is listed, and counted apart.

    Example:
        >>> from flowstone.core.output import StoredOutput
        >>> with RecordedTypes() as recorded:
        ...     _ = StoredOutput("memory", "memory:1", "int")
        >>> recorded.names()
        ['flowstone.core.output.StoredOutput']
    """

    def __init__(self) -> None:
        self.types: dict[type, None] = {}

    def __enter__(self) -> Self:
        threading.setprofile_all_threads(self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        threading.setprofile_all_threads(None)

    def names(self) -> list[str]:
        """Return the types in the order in which they were made first."""
        return [_full_name(one) for one in self.types]

    def passed_on(self) -> list[str]:
        """Return those that another module than their own names: a reader has to know them."""
        known = imported_names()
        return [name for name in self.names() if name in known]

    def _note(self, frame: FrameType, event: str, answer: object) -> None:
        # `__init__` of a dataclass, or what `core.frozen.maker` makes in its place; `__new__` of a named tuple,
        # which is a lambda, and its `_make`
        code = frame.f_code
        if event == "return" and (code.co_filename, code.co_name) == ("<string>", "make"):
            made: Any = type(answer)
        elif event == "call" and code.co_name in {"__init__", "<lambda>", "_make"} and code.co_argcount:
            first = frame.f_locals.get(code.co_varnames[0])
            made = type(first) if code.co_name == "__init__" else first
        else:
            return
        if not isinstance(made, type) or not made.__module__.startswith("flowstone."):
            return
        if is_dataclass(made) or (issubclass(made, tuple) and hasattr(made, "_fields")):
            self.types.setdefault(made)


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@cache
def imported_names() -> set[str]:
    """Return everything that one module of the package imports from another one that defines something."""
    return {
        f"{node.module}.{alias.name}"
        for path in modules().values()
        if path.name != "__init__.py"  # there names are only passed through
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def types_of_a_request() -> RecordedTypes:
    """Record what one in-memory `materialize` makes of an asset that is committed: a request, and no attempt."""
    from flowstone import FlowStone

    flow = FlowStone.for_testing(_measured_assets())
    flow.materialize("numbers")
    flow.materialize("total")
    with RecordedTypes() as recorded:
        flow.materialize("total")
    return recorded


def types_of_an_inline_step() -> RecordedTypes:
    """Record what one in-memory `materialize` of an asset with an input makes, from the call to its result."""
    from flowstone import FlowStone

    flow = FlowStone.for_testing(_measured_assets())
    flow.materialize("numbers")
    flow.materialize("total")  # what happens once does not count
    with RecordedTypes() as recorded:
        flow.materialize("total", force=True)
    return recorded


def types_of_a_durable_step(database_url: str) -> RecordedTypes:
    """Record what one step on the queue makes: placed, fetched, run in a thread, committed, and its result read.

    A worker node does that with the same parts; its loops (heartbeat, maintenance) are not run, because what they
    make is not on the way of a step.

    Args:
        database_url: DSN of a migrated database.
    """
    from flowstone import FlowStone
    from flowstone.config import Settings
    from flowstone.stores.postgres.queue import Lease
    from flowstone.stores.postgres.store import PostgresStore

    with tempfile.TemporaryDirectory() as storage:
        flow = FlowStone(_measured_assets(), settings=Settings(database_url=database_url, storage=storage))
        try:
            flow.materialize("numbers", executor="sync")
            store = flow.parts.store
            assert isinstance(store, PostgresStore)
            lease = Lease(store.database, "house")
            lease.register(kind="node", host="", pid=0, queues=_QUEUES, lease_seconds=60.0)
            with RecordedTypes() as recorded:
                asyncio.run(_materialize_with_a_worker(flow))
        finally:
            flow.close()
    return recorded


def _measured_assets() -> list[Any]:
    from flowstone import asset

    @asset
    def numbers() -> list[int]:
        return [1, 2]

    @asset
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    return [numbers, total]


async def _materialize_with_a_worker(flow: FlowStone) -> None:
    """Do what a worker node does with one job while a caller waits for its result."""
    from flowstone.engine.worker import GroupCommitter, NodeWork
    from flowstone.executors.oban.node import Node
    from flowstone.executors.oban.threads import Finished
    from flowstone.stores.postgres.store import PostgresStore

    store = flow.parts.store
    assert isinstance(store, PostgresStore)
    work = NodeWork(
        flow.graph,
        reader=flow.parts.reader,
        runner=flow.parts.runner,
        snooze_seconds=1.0,
        target_statuses=store.target_statuses,
        shapes=flow.parts.shapes,
        others=list,
    )
    committer = GroupCommitter(store.ledger.commit)
    node = Node(
        {},
        queue=store.queue,
        ledger=store.ledger,
        work=work,
        submit=committer.submit,
        worker_id=lambda: "house",
        is_renewed=lambda seconds: True,
        queues=_QUEUES,
        grace_seconds=1.0,
        sweep_seconds=60.0,
    )
    committer.start()
    node._finished = Finished(asyncio.get_running_loop())  # as `Node.run` does
    node._threads.update(node._make_threads(node._finished))
    waiting = asyncio.create_task(asyncio.to_thread(flow.materialize, "total", executor="oban"))
    while not waiting.done():
        for job in await node.take_jobs("assets", 1, "house"):
            await job.over
        await asyncio.wait([waiting], timeout=0.05)
    await waiting
    committer.stop(timeout_seconds=60.0)


def types_on_the_way(database_url: str | None = None) -> dict[str, RecordedTypes]:
    """Return the types on the way, by what goes it.

    Args:
        database_url: DSN of a migrated database; a throw-away server is started without one.
    """
    return {
        "of a request": types_of_a_request(),
        "of an inline step": types_of_an_inline_step(),
        "of a durable step": types_of_a_durable_step(database_url) if database_url else _on_a_throw_away_server(),
    }


def _on_a_throw_away_server() -> RecordedTypes:
    from flowstone.stores.postgres.database import Database
    from flowstone.stores.postgres.store import upgrade
    from flowstone.testing.postgres import TemporaryServer, remove_server

    directory = Path(tempfile.mkdtemp(prefix="flowstone-house-"))
    try:
        prepared = TemporaryServer(directory, prepare=lambda dsn: upgrade(Database(dsn)))
        with prepared as server, server.database() as dsn:
            return types_of_a_durable_step(dsn)
    finally:
        remove_server(directory)


def figures() -> Figures:
    """Return all figures."""
    found = modules()
    return {
        **cut(found),
        "modules that one sibling imports": len(only_one_sibling(found)),
        "rows read by number": positional_reads(found),
        "SQL files": sum(1 for _ in SOURCE.rglob("*.sql")),
        "old words left": old_words_left(),
        **walk_of_a_materialize(),
        **{
            f"types on the way {of}{what}": len(names)
            for of, recorded in types_on_the_way().items()
            for what, names in (("", recorded.passed_on()), (", with those of one module", recorded.names()))
        },
    }


def main() -> None:
    """Print the figures, or the types."""
    if "--types" in sys.argv[1:]:
        for of, recorded in types_on_the_way().items():
            passed_on = recorded.passed_on()
            print(f"{len(passed_on)} types on the way {of}", *passed_on, sep="\n  ")
            apart = [name for name in recorded.names() if name not in passed_on]
            print(f"  {len(apart)} that only their own module knows", *apart, sep="\n    ")
        return
    made = figures()
    if "--json" in sys.argv[1:]:
        print(json.dumps(made, indent=2))
        return
    width = max(map(len, made))
    for name, value in made.items():
        print(f"{name:<{width}}  {value:>9,}")


if __name__ == "__main__":
    main()
