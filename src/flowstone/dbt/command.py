"""One run of dbt: its own process group, its own target directory, its events as log lines, its results."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flowstone.core.context import CancellationToken
from flowstone.core.declaring import is_storable, is_text, number, shown
from flowstone.dbt import guard
from flowstone.errors import DefinitionError, FlowStoneError, MissingExtraError

GRACE_SECONDS = 15.0
"""How long dbt has to cancel its queries and end."""

OURS = frozenset(
    {"--select", "-s", "--models", "-m", "--exclude", "--selector", "--indirect-selection", "--vars"}
    | {"--target-path", "--log-path", "--log-format", "--project-dir", "--profiles-dir", "--profile"}
    | {"--target", "-t", "--event-time-start", "--event-time-end", "--full-refresh", "-f"}
)
"""Options of dbt that are set for each step."""

_FINAL = re.compile(
    r"(Compilation|Parsing|Dependency|Syntax|Yaml) Error|Env var required but not provided|Usage: dbt"
)
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_SHOWN = 20_000


class DbtError(FlowStoneError, RuntimeError):
    """dbt failed: the message is that of dbt.

    Args:
        what: what was run, such as `dbt build of model 'orders'`.
        text: what dbt said.
        command: the command line.
        exit_code: its exit code.

    Example:
        >>> str(DbtError("dbt build of model 'orders'", "Database Error", "dbt build ...", 1))
        "dbt build of model 'orders' failed (exit code 1):\\nDatabase Error\\nThe command was: dbt build ..."
    """

    def __init__(self, what: str, text: str, command: str, exit_code: int) -> None:
        self.text = text
        self.exit_code = exit_code
        self.command = command
        super().__init__(f"{what} failed (exit code {exit_code}):\n{text}\nThe command was: {command}")


class DbtProjectError(DbtError):
    """dbt refused the project itself: it does not parse or compile, or the node is gone. No retry mends that."""


@dataclass(frozen=True, slots=True)
class NodeResult:
    """What dbt reports about one node of a run.

    Args:
        status: `success`, `error`, `skipped`; `pass`, `warn`, `fail` of tests; `pass`, `warn`, `error` of
            freshness.
        message: text of the database or of dbt.
        seconds: how long it took.
        failures: rows that a test found.
        facts: what the adapter says: `rows_affected`, `bytes_processed`, ...
        code: the SQL that was run.
        relation: where the node lies, in the database of this run.
    """

    status: str
    message: str = ""
    seconds: float = 0.0
    failures: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    relation: str | None = None

    @property
    def is_ok(self) -> bool:
        """Whether dbt made the node, or the test passed."""
        return self.status in ("success", "pass", "no-op")


@dataclass(frozen=True, slots=True)
class DbtRun:
    """What came of one run of dbt.

    Args:
        what: what was run, for errors.
        command: the command line.
        exit_code: its exit code.
        results: by unique id.
        problems: texts of errors, in their order.
        invocation_id: dbt's name for the run.
    """

    what: str
    command: str
    exit_code: int
    results: Mapping[str, NodeResult]
    problems: Sequence[str] = ()
    invocation_id: str | None = None

    def raise_for_hooks(self) -> None:
        """Raise if a hook of the project (`on-run-start`, `on-run-end`) failed, which fails no node.

        Raises:
            DbtError: says which one, and why.
        """
        for name, result in self.results.items():
            if name.startswith("operation.") and not result.is_ok:
                raise self.error(replace(result, message=f"Hook {name}: {result.message}"))

    def error(self, result: NodeResult | None = None) -> DbtError:
        """Return the error that says what dbt said, about one node or about the run."""
        text = result.message if result is not None and result.message else "\n".join(self.problems)
        kind = DbtProjectError if _FINAL.search(text) else DbtError
        return kind(self.what, text[-_SHOWN:] or "dbt gave no reason.", self.command, self.exit_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class DbtCommand:
    """How dbt is run for a project.

    Args:
        executable: name or path of dbt; None for the one beside this Python, else the one of the PATH.
        project_dir: directory of the project.
        profiles_dir: directory of profiles.yml; None leaves that to dbt.
        profile: name of the profile; None leaves that to the project.
        target: name of the target; None leaves that to the profile.
        arguments: more options of dbt.
        environment: more environment variables.
    """

    executable: str | None
    project_dir: Path
    profiles_dir: Path | None = None
    profile: str | None = None
    target: str | None = None
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(
        self,
        verb: str,
        options: Iterable[str],
        *,
        what: str,
        variables: Mapping[str, Any],
        environment: Mapping[str, str],
        cancellation: CancellationToken,
        logger: logging.Logger,
        asset: str,
    ) -> DbtRun:
        """Run dbt once, in a process group and a target directory of its own.

        Args:
            verb: `build`, `test`, `source freshness`.
            options: what is selected.
            what: what that is, for errors.
            variables: `--vars`.
            environment: variables of this run.
            cancellation: ends dbt.
            logger: receives dbt's lines.
            asset: for the error of a step that was cancelled.

        Raises:
            StepCancelledError: it was ended.
            MissingExtraError: there is no dbt.
        """
        cancellation.raise_if_cancelled(asset)
        with tempfile.TemporaryDirectory(prefix="flowstone-dbt-") as directory:
            target = Path(directory)
            self._bring_parsed(target)
            command = [self._executable(), *self._options(verb, target), *options]
            if variables:
                command += ["--vars", json.dumps(dict(variables), default=str)]
            problems: list[str] = []
            code = self._follow(command, environment, cancellation, _Lines(logger, problems))
            cancellation.raise_if_cancelled(asset)
            written = _read(target / ("sources.json" if verb == "source freshness" else "run_results.json"))
            results = _results(written)
            relations = _relations(results, target)
            return DbtRun(
                what=what,
                command=_as_written(command, directory),
                exit_code=code,
                results={name: _result(one, relations.get(name)) for name, one in results.items()},
                problems=problems,
                invocation_id=_mapping(written.get("metadata")).get("invocation_id"),
            )

    def _options(self, verb: str, target: Path) -> list[str]:
        options = [*verb.split(), "--log-format", "json", "--log-level", "info", "--no-use-colors"]
        options += [
            "--write-json",  # without it, as a project may say, a step would not know what was built
            "--target-path",
            str(target),
            "--log-path",
            str(target),
            "--project-dir",
            str(self.project_dir),
        ]
        for name, value in (
            ("profiles-dir", self.profiles_dir),
            ("profile", self.profile),
            ("target", self.target),
        ):
            if value is not None:
                options += [f"--{name}", str(value)]
        return [*options, *self.arguments]

    def _executable(self) -> str:
        beside = Path(sys.executable).with_name("dbt")
        if self.executable is not None:
            found = shutil.which(self.executable)
        else:
            found = str(beside) if beside.is_file() else shutil.which("dbt")
        if found is None and self.executable is not None:
            raise DefinitionError(
                f"dbt_executable={self.executable!r} is no program that can be run here. Give the path of dbt, "
                "such as /opt/dbt/bin/dbt, or install it in the environment of the workers."
            )
        if found is None:
            raise MissingExtraError("dbt-core", "dbt", "Running dbt (and the adapter of your database)")
        return found

    def _bring_parsed(self, target: Path) -> None:
        """Have dbt go on from what it parsed before, which it searches in its target directory."""
        with suppress(OSError):
            shutil.copyfile(
                self.project_dir / "target" / "partial_parse.msgpack", target / "partial_parse.msgpack"
            )

    def _follow(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        cancellation: CancellationToken,
        line: Callable[[str], None],
    ) -> int:
        plain = dict(os.environ)
        # dbt reports each run to its makers unless it is switched off; a worker's steps are not theirs to count
        usage = {"DBT_SEND_ANONYMOUS_USAGE_STATS": plain.get("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")}
        process = subprocess.Popen(  # noqa: S603 - the command is made of declared options
            [sys.executable, "-I", "-S", guard.__file__, str(GRACE_SECONDS), *command],
            cwd=self.project_dir,
            env={**plain, **usage, **self.environment, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def end() -> None:
            with suppress(OSError, ValueError):
                stdin.close()

        try:
            cancellation.on_cancel(end)
            for text in stdout:
                line(text)
            return process.wait()
        finally:
            end()
            process.wait()
            stdout.close()


class _Lines:
    """Makes log records of dbt's lines, and keeps the texts of errors."""

    def __init__(self, logger: logging.Logger, problems: list[str]) -> None:
        self._logger = logger
        self._problems = problems

    def __call__(self, line: str) -> None:
        try:
            event = json.loads(line)
            level, text = str(event["info"]["level"]), str(event["info"]["msg"])
        except (ValueError, LookupError, TypeError, RecursionError):
            level, text = "raw", line  # a traceback, or what a package prints
        # half a character breaks whatever writes it down
        text = text.encode(errors="replace").decode().rstrip()
        if not text:
            return
        if level in ("error", "raw"):
            self._problems.append(text)
            del self._problems[:-200]
        self._logger.log(_LEVELS.get(level, logging.INFO), "%s", text)


def check_arguments(arguments: object) -> tuple[str, ...]:
    """Refuse options of dbt that each step sets itself.

    Raises:
        DefinitionError: names the option, and what sets it.

    Example:
        >>> check_arguments(["--threads", "4"])
        ('--threads', '4')
    """
    if isinstance(arguments, str | bytes | Mapping) or not isinstance(arguments, Iterable):
        raise DefinitionError(f'dbt_assets(arguments={shown(arguments)}): give a list: ["--threads", "4"].')
    listed = tuple(arguments)
    for one in listed:
        if not isinstance(one, str) or not is_storable(one):
            raise DefinitionError(f"dbt_assets(arguments=...): {shown(one)} is no text of a command line.")
        if one.partition("=")[0] in OURS:
            raise DefinitionError(
                f"dbt_assets(arguments=...): {one} is set by each step for itself. Nodes are chosen by select= "
                "and exclude=, variables given by vars=; a full refresh is config of a run: "
                "config={'full_refresh': True}."
            )
    return listed


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):  # dbt was killed while it wrote
        return {}
    return _mapping(found)


def _mapping(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _results(written: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the results of a run by unique id; a node without one counts as not built."""
    listed = written.get("results")
    return {
        one["unique_id"]: one
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and isinstance(one.get("unique_id"), str)
    }


def _relations(results: Mapping[str, Mapping[str, Any]], target: Path) -> dict[str, str | None]:
    """Return where nodes lie in the database of this run, which may be another than that of the manifest.

    Of seeds only the manifest of the run knows that.
    """
    found = {name: one.get("relation_name") for name, one in results.items()}
    if any(found[name] is None and name.startswith(("seed.", "snapshot.", "function.")) for name in found):
        nodes = _mapping(_read(target / "manifest.json").get("nodes"))
        found = {name: value or _mapping(nodes.get(name)).get("relation_name") for name, value in found.items()}
    return found


def _result(raw: Mapping[str, Any], relation: str | None) -> NodeResult:
    facts = dict(_mapping(raw.get("adapter_response")))
    if raw.get("max_loaded_at"):
        facts["max_loaded_at"] = str(raw["max_loaded_at"])
        facts["age_seconds"] = number(raw.get("max_loaded_at_time_ago_in_s"))
    return NodeResult(
        status=str(raw.get("status")),
        message=str(raw.get("message") or raw.get("error") or ""),
        seconds=number(raw.get("execution_time")) or 0.0,
        failures=raw.get("failures"),
        facts=facts,
        code=str(raw.get("compiled_code") or ""),
        relation=relation if is_text(relation) else None,
    )


def _as_written(command: Sequence[str], directory: str) -> str:
    """Return a command as a person would repeat it: without what belonged to this run."""
    kept: list[str] = []
    skipped = {"--log-format", "--log-level", "--target-path", "--log-path"}
    parts = iter(["dbt", *command[1:]])
    for part in parts:
        if part in skipped:
            next(parts, None)
        elif part not in ("--no-use-colors", "--write-json"):
            kept.append(part if re.fullmatch(r"[\w./:+=@-]+", part) else "'" + part.replace("'", "'\\''") + "'")
    return " ".join(kept).replace(directory, "target")
