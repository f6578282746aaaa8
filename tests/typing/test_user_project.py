"""A project of a user in strict mode: mypy and pyright accept what is documented, and find what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

import flowstone

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"  # error: \S")

type Found = dict[str, dict[int, list[str]]]
"""What a checker says, by file and line."""

MYPY = """
[mypy]
strict = True
python_version = 3.12
mypy_path = .
explicit_package_bases = True
[mypy-pyarrow.*]
ignore_missing_imports = True
[mypy-pages.*]
# the blocks of a page are short: they leave annotations out
disallow_untyped_defs = False
disallow_incomplete_defs = False
disallow_untyped_calls = False
disallow_untyped_decorators = False
# and the check for None, and begin anew with names that an earlier block has
disable_error_code = no-redef, var-annotated, has-type, union-attr
"""

UNKNOWN = ("Member", "Variable", "Argument", "Parameter", "Lambda")
PYRIGHT = {
    "include": ["."],
    "exclude": ["env"],
    "venvPath": ".",
    "venv": "env",
    "typeCheckingMode": "strict",
    "pythonVersion": "3.12",
    "executionEnvironments": [
        {  # as above
            "root": "pages",
            "reportMissingParameterType": False,
            "reportMissingTypeStubs": False,
            "reportOptionalIterable": False,
            "reportOptionalMemberAccess": False,
            "reportRedeclaration": False,
            "reportUnusedImport": False,
            **{f"reportUnknown{one}Type": False for one in UNKNOWN},
        },
        {  # PyArrow has no types
            "root": "git_history",
            "extraPaths": ["."],
            "reportMissingTypeStubs": False,
            **{f"reportUnknown{one}Type": False for one in UNKNOWN},
        },
        {"root": "."},
    ],
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project beside an environment in which the package is installed, as it comes in its wheel."""
    directory = tmp_path_factory.mktemp("project")
    venv.create(directory / "env", with_pip=False, symlinks=True)
    packages = next((directory / "env" / "lib").glob("python*/site-packages"))
    shutil.copytree(
        Path(flowstone.__file__).parent, packages / "flowstone", ignore=shutil.ignore_patterns("*.pyc")
    )
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    leave = shutil.ignore_patterns(
        "__pycache__", "complete_project", "elt_duckdb"
    )  # one is copied below, pyarrow has no types
    shutil.copytree(ROOT / "examples", directory, dirs_exist_ok=True, ignore=leave)
    numbers = ROOT / "examples" / "complete_project" / "shop_numbers"  # a project of its own
    shutil.copytree(numbers, directory / numbers.name)
    for name in ("forms.py", "mistakes.py"):
        shutil.copy(HERE / name, directory)
    (directory / "pages").mkdir()
    for page in PAGES:
        blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
        name = re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix("")).lower())
        if blocks:
            (directory / "pages" / f"{name}.py").write_text("\n\n".join(blocks), encoding="utf-8")
    (directory / "mypy.ini").write_text(MYPY, encoding="utf-8")
    (directory / "pyrightconfig.json").write_text(json.dumps(PYRIGHT), encoding="utf-8")
    return directory


def ask(directory: Path, *command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MYPY")}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(directory: Path) -> Found:
    python = directory / "env" / "bin" / "python"
    message = ask(directory, "mypy", "--python-executable", str(python), "--exclude", "^env/", "--no-pretty", ".")
    found: Found = defaultdict(lambda: defaultdict(list))
    for file, line, text in re.findall(r"^(\S+?):(\d+): error: (.*)$", message, re.MULTILINE):
        found[file][int(line)].append(text)
    return found


def pyright(directory: Path) -> Found:
    message = json.loads(ask(directory, "pyright", "--outputjson", "--project", "."))
    found: Found = defaultdict(lambda: defaultdict(list))
    for one in message["generalDiagnostics"]:
        if one["severity"] == "error":
            file = str(Path(one["file"]).resolve().relative_to(directory.resolve()))
            found[file][one["range"]["start"]["line"] + 1].append(f"{one['message']} ({one.get('rule')})")
    return found


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_what_is_documented_passes_and_each_mistake_is_found(
    project: Path, checker: Callable[[Path], Found]
) -> None:
    found = checker(project)
    mistakes = found.pop("mistakes.py", {})
    problems = [
        f"{file}:{line}: {text}"
        for file, lines in found.items()
        for line, texts in lines.items()
        for text in texts
    ]
    assert not problems, "\n".join(problems)
    source = (project / "mistakes.py").read_text(encoding="utf-8").splitlines()
    marked = {number for number, line in enumerate(source, 1) if MARK.search(line)}
    missed = [
        f"mistakes.py:{number} is not found: {source[number - 1]}" for number in sorted(marked - set(mistakes))
    ]
    more = [f"mistakes.py:{number}: {mistakes[number]}" for number in sorted(set(mistakes) - marked)]
    assert not missed + more, "\n".join(missed + more)
    assert len(marked) > 40
