"""A project of a user: `init` makes one that runs at once, `check` says whether its app can be used."""

from __future__ import annotations

import importlib.util
import json
import keyword
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from string import Template
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

from flowstone.app import FlowStone
from flowstone.app.build import recording_in_memory
from flowstone.app.diagnostics import Check, Verdict
from flowstone.cli.calls import DONE, FAILED
from flowstone.cli.output import Column, one_line
from flowstone.cli.session import Session
from flowstone.core.selection import select
from flowstone.errors import FlowStoneError, OptionsError

_TEMPLATES = Path(__file__).with_name("template")
_FILES = {
    "pyproject.txt": "pyproject.toml",
    "readme.txt": "README.md",
    "gitignore.txt": ".gitignore",
    "ci.txt": ".github/workflows/ci.yml",
    "assets.txt": "{package}/assets.py",
    "flow.txt": "{package}/flow.py",
    "test_flow.txt": "tests/test_flow.py",
}
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_TAKEN = ("tests", "flowstone")
_MAX_NAME = 100
_DAYS = 14  # that the example begins before today


def init(
    session: Session,
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Where to; its last part is the name.")],
) -> None:
    """Make a project that runs at once: assets, a schedule, a test and a CI file. Never overwrites anything."""
    place = directory.expanduser().absolute()
    place = place if place.name not in ("", ".", "..") else place.resolve()
    package = _package(place.name)
    _refuse_to_overwrite(place)
    words = {
        "name": place.name,
        "package": package,
        "start": (datetime.now(UTC) - timedelta(days=_DAYS)).date().isoformat(),
        "sources": _sources(),
    }
    files = {
        target.format(package=package): Template(_TEMPLATES.joinpath(source).read_text(encoding="utf-8"))
        for source, target in _FILES.items()
    }
    try:
        for target, template in files.items():
            path = place / target
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:  # x: also a file that appeared just now stays
                file.write(template.substitute(words).rstrip() + "\n")
        (place / package / "__init__.py").touch()
    except OSError as error:
        raise OptionsError(f"{place}: {error.strerror or error}. Nothing that was there is changed.") from error
    if session.out.as_json:
        session.out.json({"directory": str(place), "package": package, "files": [*files]})
        return
    session.out.line(f"{place} is a project now: {', '.join(files)}.", hang=2)
    session.out.line("Next:")
    session.out.line(f"  cd {_shell(directory)}")
    session.out.line("  uv run flowstone dev    # database, worker and pages")
    session.out.line("  uv run pytest")


def _package(name: str) -> str:
    """Return the name of the package of a project.

    Raises:
        OptionsError: it cannot be one; says why.

    Example:
        >>> _package("my-shop")
        'my_shop'
    """
    package = re.sub(r"[-.]+", "_", name).lower()
    advice = "Choose a name such as my-shop: letters, digits, - and _, a letter first."
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME or not package.isidentifier():
        raise OptionsError(f"A project cannot be called {name!r}. {advice}")
    if keyword.iskeyword(package) or package in _TAKEN or package in sys.stdlib_module_names:
        raise OptionsError(f"A project cannot be called {name!r}: Python has {package!r} already. {advice}")
    if importlib.util.find_spec(package) is not None and package not in _here():
        raise OptionsError(
            f"A project cannot be called {name!r}: a package {package!r} is installed, and one would hide the "
            f"other. {advice}"
        )
    return package


def _here() -> set[str]:
    """Return what the working directory alone makes importable."""
    return {path.stem for path in Path.cwd().iterdir()} if "" in sys.path else set()


def _refuse_to_overwrite(place: Path) -> None:
    if place.exists() and not place.is_dir():
        raise OptionsError(f"{place} is a file. Name a directory that is not there yet, or an empty one.")
    found = sorted(path.name for path in place.iterdir() if path.name != ".git") if place.is_dir() else []
    if found:
        listed = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        raise OptionsError(
            f"{place} is not empty ({listed}), and `flowstone init` overwrites nothing. Name a directory that is "
            "not there yet; an existing project needs only [tool.flowstone] in pyproject.toml: app = "
            '"package.module:flow".'
        )


def _sources() -> str:
    """Return where the project takes FlowStone from: from where this one comes when that is a directory."""
    try:
        found = json.loads(distribution("flowstone").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return ""
    url = urlsplit(found.get("url", ""))
    if url.scheme != "file" or "dir_info" not in found:
        return ""
    editable = ", editable = true" if found["dir_info"].get("editable") else ""
    return f"\n[tool.uv.sources]\nflowstone = {{ path = {json.dumps(unquote(url.path))}{editable} }}"


def _shell(directory: Path) -> str:
    text = str(directory)
    return text if re.fullmatch(r"[\w./~-]+", text) else "'" + text.replace("'", "'\\''") + "'"


def check(
    session: Session,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when there is a warning.")] = False,
) -> int:
    """Import the app and check its declarations, without a database: for CI, and before it is deployed.

    What cannot work (an import that fails, assets that do not fit together, an unknown setting) ends with 2.
    """
    with recording_in_memory():
        flow = session.flow
    found = list(_findings(flow))
    fails = any(one.verdict is Verdict.FAIL for one in found)
    counts = {
        "assets": len(flow.graph.assets),
        "checks": sum(len(flow.parts.checks.declared.of(name)) for name in flow.graph.assets),
        "schedules": len(flow.schedules.list()),
        "sensors": len(flow.sensors.list()),
    }
    bad = fails or (strict and bool(found))
    if session.out.as_json:
        listed = [
            {"name": one.name, "verdict": one.verdict.value, "detail": one.detail, "remedy": one.remedy}
            for one in found
        ]
        session.out.json({"ok": not bad, "app": session.target, **counts, "findings": listed})
        return FAILED if bad else DONE
    if found:
        session.out.table(
            [Column("WHAT"), Column("STATE"), Column("FOUND")],
            [[one.name, one.verdict.value, one.detail] for one in found],
        )
        for one in found:
            session.out.line(f"{one_line(one.name)}: {one_line(one.remedy)}", hang=2)
    listed_counts = ", ".join(
        f"{number:,} {what.removesuffix('s') if number == 1 else what}"
        for what, number in counts.items()
        if number
    )
    verdict = "cannot be used as it is" if fails else "can be used" + (", with warnings" if found else "")
    session.out.line(f"{session.target} {verdict}: {listed_counts or 'no assets'}.", hang=2)
    return FAILED if bad else DONE


def _findings(flow: FlowStone) -> Iterator[Check]:
    """Yield what can be declared, and will not work as it was meant."""
    if not flow.graph.assets:
        yield Check("app", Verdict.WARN, "it declares no assets", "Pass them: FlowStone([orders, ...]).")
    served = set(flow.settings.queues)
    for asset in flow.graph:
        if asset.queue not in served:
            yield Check(
                f"asset {asset.name}",
                Verdict.WARN,
                f"no worker with these settings serves its queue {asset.queue!r}",
                f"Add it to queues in the settings file, start workers with --queue {asset.queue}, or take one of "
                f"{', '.join(sorted(served))}.",
            )
    for schedule in flow.schedules.list():
        yield from _schedule_findings(flow, schedule.schedule.name, schedule.schedule.selection)
        if not schedule.next_ticks:
            remedy = "Correct its cron expression: `flowstone schedules show NAME` lists the next times."
            yield Check(f"schedule {schedule.schedule.name}", Verdict.WARN, "it has no next time", remedy)


def _schedule_findings(flow: FlowStone, name: str, selection: object) -> Iterator[Check]:
    if not isinstance(selection, str):
        return
    try:
        chosen = select(flow.graph, selection)
    except FlowStoneError as error:
        yield Check(f"schedule {name}", Verdict.FAIL, one_line(str(error)), "Correct its selection.")
        return
    if not chosen:
        yield Check(f"schedule {name}", Verdict.WARN, f"{selection} selects nothing", "Correct its selection.")
