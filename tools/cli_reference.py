"""All commands as documents: `reference.json` for completion, `help.txt` for `--help`, the list in `docs/cli.md`.

`python -m tools.cli_reference` writes all three; a test compares them with the commands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from flowstone.cli import app
from flowstone.cli.commands import COMMANDS, FAILS, PANELS, Listed

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "src" / "flowstone" / "cli" / "reference.json"
HELP = REFERENCE.with_name("help.txt")
PAGE = ROOT / "docs" / "cli.md"
MARK = "<!-- what follows is written by python -m tools.cli_reference -->"
COMMON = ("--app", "--app-dir", "--database", "--project", "--json", "--wide", "--verbose", "--help")


def described(command: Any, summary: str = "", *, top: bool = False) -> dict[str, Any]:
    """Return what completion needs to know of a command or group."""
    found: dict[str, Any] = {"help": summary}
    completes = getattr(command, "completes", {})
    options: dict[str, Any] = {}
    arguments: list[dict[str, Any]] = []
    for one in command.params:
        values = completes.get(one.name)
        if one.param_type_name == "argument":
            arguments.append({k: v for k, v in {"values": values, "many": one.nargs == -1}.items() if v})
            continue
        takes = not (one.is_flag or getattr(one, "count", False))
        option = {"help": one.help or "", "takes": takes, "values": values}
        for name in (*one.opts, *one.secondary_opts):
            if top or one.opts[0] not in COMMON:  # which the program itself has
                options[name] = {key: value for key, value in option.items() if value}
    if top:
        options["--help"] = {"help": "Show this message and exit."}
    if options:
        found |= {"options": options}
    if arguments:
        found["arguments"] = arguments
    if isinstance(commands := getattr(command, "commands", None), dict):
        found["commands"] = {name: described(commands[name], commands.listed[name].summary) for name in commands}
        found |= {key: value for key in ("bare", "one") if (value := getattr(command, key, ""))}
    return found


def reference() -> str:
    """Return the text of `reference.json`."""
    return (
        json.dumps(described(typer.main.get_command(app), top=True), indent=1, ensure_ascii=False, sort_keys=False)
        + "\n"
    )


def help_text() -> str:
    """Return the text of `help.txt`: what the program itself writes of its commands."""
    root = typer.main.get_command(app)
    context = root.make_context("flowstone", [], resilient_parsing=True, terminal_width=78)
    return root.get_help(context) + "\n"


def page() -> str:
    """Return the part of `docs/cli.md` below the mark."""
    root = typer.main.get_command(app)
    lines: list[str] = []
    for panel in PANELS:
        lines += ["", f"## {panel}"]
        for listed in COMMANDS:
            if listed.panel == panel:
                lines += _section(root.commands[listed.name], listed, listed.name)  # type: ignore[attr-defined]
    return "\n".join(lines) + "\n"


def _section(command: Any, listed: Listed, path: str) -> Iterator[str]:
    if listed.inside:
        for inner in listed.inside:
            yield from _section(command.commands[inner.name], inner, f"{path} {inner.name}")
        return
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    own = [one for one in command.params if one.param_type_name != "argument" and one.opts[0] not in COMMON]
    usage = " ".join(["flowstone", path, *(one.metavar or one.name.upper() for one in arguments)])
    yield from ("", f"### `{path}`", "", f"`{usage}`" + (" and options" if own else ""), "")
    yield from (line.strip() for line in str(command.help).strip().splitlines())
    rows = [*((f"`{one.metavar or one.name.upper()}`", one.help or "") for one in arguments)]
    rows += [(_option(one), one.help or "") for one in own]
    if rows:
        yield from ("", "| | |", "|---|---|")
        yield from (f"| {name} | {_cell(text)} |" for name, text in rows)
    if path in FAILS:
        yield from ("", f"Exit code {FAILS[path]}.")


def _option(one: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
    return names + ("" if one.is_flag or not one.metavar else f" `{one.metavar}`")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def whole_page() -> str:
    """Return `docs/cli.md` with the list as it is now."""
    return PAGE.read_text(encoding="utf-8").partition(MARK)[0] + MARK + "\n" + page()


def main() -> int:
    """Write the files; return 1 when one was not current."""
    texts = {REFERENCE: reference(), HELP: help_text(), PAGE: whole_page()}
    changed = [path for path, text in texts.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in changed:
        path.write_text(texts[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())
