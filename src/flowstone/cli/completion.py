"""The completion of a shell, without importing a command, the app, or the library that reads command lines.

typer installs the scripts (`--install-completion`) and answers them too; this does the same from `reference.json`,
in a tenth of the time, which at every press of TAB is the difference. What it does not know it leaves to typer.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flowstone.cli import COMPLETION_VARIABLE
from flowstone.cli.known_names import matching

_SHELLS = ("bash", "zsh", "fish")


def answer() -> int | None:
    """Write what completes the words that the shell has put into the environment.

    Returns:
        The exit code; None when it was not for us to answer.
    """
    action, _, shell = os.environ.get(COMPLETION_VARIABLE, "").partition("_")
    if action != "complete" or shell not in _SHELLS:
        return None
    words, incomplete = _words(shell)
    found = list(complete(_reference(), words, incomplete))
    if shell == "fish" and os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        return 0 if found else 1
    sys.stdout.write(_written(shell, found) + "\n")
    return 0


def complete(reference: dict[str, Any], words: Sequence[str], incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield what a command line can go on with, each with what it stands for.

    Args:
        reference: all commands, as `reference.json` has them.
        words: those before the one that is being typed, without the name of the program.
        incomplete: what was typed of it.

    Example:
        >>> tree = {"options": {"--json": {}}, "commands": {"ls": {"help": "List assets"}, "graph": {}}}
        >>> list(complete(tree, ["--json"], "l"))
        [('ls', 'List assets')]
    """
    here, options = reference, dict(reference.get("options", {}))
    arguments, awaiting = 0, None
    for word in words:
        if awaiting is not None:
            awaiting = None
        elif word.startswith("-") and word != "--":
            option = options.get(word.partition("=")[0], {})
            awaiting = option if option.get("takes") and "=" not in word else None
        elif word in here.get("commands", {}):
            here = here["commands"][word]
            options |= here.get("options", {})
        else:
            inner, moved = _meant(here, options, bare=False)
            here = {} if "commands" in here and not moved else inner  # a word that names no command
            arguments = 1 if moved else arguments + 1
    if awaiting is not None:
        yield from _values(awaiting.get("values"), incomplete)
    elif incomplete.startswith("--") and "=" in incomplete:
        name, _, value = incomplete.partition("=")
        yield from (
            (f"{name}={found}", text) for found, text in _values(options.get(name, {}).get("values"), value)
        )
    elif incomplete.startswith("-"):
        here, _ = _meant(here, options, bare=True)
        yield from (
            (name, str(option.get("help", ""))) for name, option in options.items() if name.startswith(incomplete)
        )
    else:
        for name, command in here.get("commands", {}).items():
            if name.startswith(incomplete):
                yield name, str(command.get("help", ""))
        if here.get("one"):  # `runs ID` is `runs show ID`
            here, _ = _meant(here, {}, bare=False)
        kinds = here.get("arguments", [])
        if kinds:
            last = kinds[-1]
            kind = kinds[arguments] if arguments < len(kinds) else (last if last.get("many") else {})
            yield from _values(kind.get("values"), incomplete)


def _meant(here: dict[str, Any], options: dict[str, Any], *, bare: bool) -> tuple[dict[str, Any], bool]:
    """Return the command of a group that is meant when none is named."""
    name = here.get("bare" if bare else "one", "")
    if not name or "commands" not in here:
        return here, False
    found = here["commands"][name]
    options |= found.get("options", {})
    return found, True


def _values(kind: Any, incomplete: str) -> Iterator[tuple[str, str]]:
    if isinstance(kind, list):
        yield from ((value, "") for value in kind if value.startswith(incomplete))
    elif isinstance(kind, str):
        yield from ((name, "") for name in matching(kind, incomplete))


def _reference() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("reference.json").read_text(encoding="utf-8"))
    return found


def _words(shell: str) -> tuple[list[str], str]:
    """Return the words before the one that is typed, and what was typed of it."""
    if shell == "bash":
        words = _split(os.environ.get("COMP_WORDS", ""))
        place = int(os.environ.get("COMP_CWORD", "0") or 0)
        return words[1:place], words[place] if place < len(words) else ""
    text = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    words = _split(text)[1:]
    if words and not text.endswith(" "):
        return words[:-1], words[-1]
    return words, ""


def _split(text: str) -> list[str]:
    """Split as a shell does; an open quotation ends at the end."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    found: list[str] = []
    try:
        found += lexer
    except ValueError:
        found.append(lexer.token)
    return found


def _written(shell: str, found: Sequence[tuple[str, str]]) -> str:
    if shell == "bash":
        return "\n".join(value for value, _ in found)
    if shell == "fish":
        return "\n".join(f"{value}\t{_plain(text)}" if text else value for value, text in found)
    if not found:
        return "_files"
    shown = "\n".join(f'"{_zsh(value)}":"{_zsh(text)}"' if text else f'"{_zsh(value)}"' for value, text in found)
    return f"_arguments '*: :(({shown}))'"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _zsh(text: str) -> str:
    """Return text for the list of `_arguments`, which zsh evaluates twice."""
    return re.sub(r"[^\w .,:/@+=%()\[\]<>*|-]", "", _plain(text)).replace(":", "\\\\:")
