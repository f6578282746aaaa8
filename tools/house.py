"""Figures of the house: how the code is cut, and how many of its rooms one call walks through.

    python -m tools.house           a table
    python -m tools.house --json    one JSON document, to compare two commits

What each figure is for, and what it was when this was first measured, stands in docs/architecture.md.
"""

from __future__ import annotations

import ast
import json
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "flowstone"
GLOSSARY = ROOT / "docs" / "glossary.md"

type Figures = dict[str, int | float]


def modules() -> dict[str, Path]:
    """Return the modules of the package by dotted name; a package goes by the name of its folder."""
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
    wanted: dict[str, set[str]] = defaultdict(set)
    for name, path in found.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    wanted[full if full in found else node.module].add(name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    wanted[alias.name].add(name)
    return {name: wanted[name] - {name} for name in found}


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


def old_words() -> list[str]:
    """Return the words that the glossary took out of use: the lines of its last table."""
    if not GLOSSARY.is_file():
        return []
    section = GLOSSARY.read_text(encoding="utf-8").partition("## No longer in use")[2]
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    return [word for row in rows for word in re.findall(r"`(.+?)`", row)]


def old_words_left(words: list[str]) -> int:
    """Return how often such a word still stands in code or SQL."""
    if not words:
        return 0
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b")
    paths: Iterator[Path] = (path for path in SOURCE.rglob("*") if path.suffix in {".py", ".sql"})
    return sum(len(pattern.findall(path.read_text(encoding="utf-8"))) for path in paths)


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


def figures() -> Figures:
    """Return all figures."""
    found = modules()
    words = old_words()
    return {
        **cut(found),
        "modules that one sibling imports": len(only_one_sibling(found)),
        "rows read by number": positional_reads(found),
        "SQL files": sum(1 for _ in SOURCE.rglob("*.sql")),
        "old words left": old_words_left(words),
        **walk_of_a_materialize(),
    }


def main() -> None:
    """Print the figures."""
    made = figures()
    if "--json" in sys.argv[1:]:
        print(json.dumps(made, indent=2))
        return
    width = max(map(len, made))
    for name, value in made.items():
        print(f"{name:<{width}}  {value:>9,}")


if __name__ == "__main__":
    main()
