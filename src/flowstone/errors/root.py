"""The root of the error tree, the errors of the database, and how messages suggest names and write commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from difflib import get_close_matches

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_WORDS = ("and", "or", "not")


class FlowStoneError(Exception):
    """Base of all errors raised by FlowStone.

    Example:
        >>> issubclass(FlowStoneError, Exception)
        True
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known name, or an empty string.

    Args:
        name: what was written.
        known: the names that exist.

    Example:
        >>> did_you_mean("numbres", ["numbers", "doubled"])
        " Did you mean 'numbers'?"
    """
    close = get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


_OTHER_WORDS = {
    "max_concurrency concurrency": "max_parallel max_parallelism parallel parallelism workers max_workers "
    "num_workers n_jobs max_concurrent concurrency_limit max_active_tasks max_active_runs pool pools "
    "concurrency_key",
    "retry max_attempts": "retries max_retries num_retries retry_count retry_policy attempts tries max_tries",
    "backoff_seconds retry": "retry_delay retry_delay_seconds retry_delay_ms delay wait_seconds "
    "base_delay interval",
    "retry_on": "exceptions retry_exceptions retry_for on_exceptions retry_if",
    "partition partitions": "partition_key partition_id key ds date day execution_date logical_date data_interval",
    "partitions partition": "partition_keys partition_range partitions_def keys dates days start end "
    "from_ to until",
    "asset selection name": "asset_name asset_key asset_keys assets node task job target targets op name key",
    "config": "run_config op_config conf params parameters op_kwargs settings_dict",
    "timeout_seconds timeout": "timeout timeout_s timeout_sec timeout_ms execution_timeout deadline max_runtime "
    "run_timeout seconds",
    "tags metadata": "run_tags op_tags labels labels_dict",
    "metadata": "extra info annotations",
    "io": "io_manager io_manager_key io_manager_def io_managers storage result_storage persist_result",
    "deps": "depends_on upstream upstream_assets dependencies non_argument_deps ins after",
    "group": "group_name",
    "code_version": "version op_version",
    "requires resources": "required_resource_keys resource_keys resource_defs",
    "automation": "automation_condition auto_materialize_policy schedule cron freshness_policy",
    "description": "doc docs docstring help",
    "wait": "block blocking background run_async detach",
    "scheduled_at": "at when run_at eta countdown start_at start_time scheduled_for scheduled_time "
    "delay schedule_in",
    "force": "overwrite rerun refresh full_refresh refresh_cache recompute ignore_cache reset",
    "timezone": "tz execution_timezone time_zone",
    "cron": "cron_schedule cron_string schedule expression interval",
    "selection": "job job_name asset assets target asset_selection",
    "database_url": "db database db_url url dsn connection_string postgres_url",
    "isolation": "isolated process subprocess sandbox",
    "unique": "dedup unique_for unique_period deduplicate",
    "on_progress": "progress callback on_step on_event",
    "materialize": "run execute launch submit trigger apply call",
    "materialize_all": "run_all execute_job build",
    "cancel": "terminate kill stop abort",
    "load": "load_asset_value get_value result read",
}
"""Option or verb here (the first that is there) to words for it elsewhere: Dagster, Prefect, Airflow, Celery."""

_ELSEWHERE = {
    "retry": " Retries are declared, @asset(retry=RetryPolicy(max_attempts=3)); an executor in this process "
    "follows them with executor_opts={'retry': True}.",
    "timeout": " A limit is declared, @asset(timeout=60), or given for one call: "
    "executor_opts={'timeout_seconds': 60}, {'wait_timeout': 60} on oban.",
}


def option_hint(name: str, known: Iterable[str]) -> str:
    """Return what was meant by an option that is not there: a word of another tool, or the closest name.

    Args:
        name: what was written.
        known: the options that exist.

    Example:
        >>> option_hint("max_parallel", ["force", "max_concurrency"]), option_hint("froce", ["force"])
        (" Did you mean 'max_concurrency'?", " Did you mean 'force'?")
    """
    options = list(known)
    meant = [ours.split() for ours, theirs in _OTHER_WORDS.items() if name in theirs.split()]
    for ours in meant:
        if found := next((one for one in ours if one in options and one != name), None):
            return f" Did you mean {found!r}?"
    if name.startswith("retr") or name in ("attempts", "tries", "max_tries"):
        return _ELSEWHERE["retry"] if "executor_opts" in options else ""
    if name in _OTHER_WORDS["timeout_seconds timeout"].split() or name == "timeout_seconds":
        return _ELSEWHERE["timeout"] if "executor_opts" in options else ""
    return did_you_mean(name, options)


def join_names(items: Iterable[str], *, limit: int = 10) -> str:
    """Return names joined by commas, the first ones when there are many.

    Example:
        >>> join_names("abc", limit=2)
        'a, b and 1 more'
    """
    listed = list(items)
    shown = ", ".join(listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"


def selected(name: str, *, upstream: bool = False) -> str:
    """Return the selection of one asset, with what is upstream of it if requested; `select` reads it back.

    Example:
        >>> selected("orders", upstream=True), selected("my orders", upstream=True), selected("a+1")
        ('+orders', '+"my orders"', '"a+1"')
    """
    plain = _PLAIN_NAME.fullmatch(name) and name.lower() not in _WORDS
    quoted = name if plain else '"{}"'.format(name.replace('"', '""'))
    return f"+{quoted}" if upstream else quoted


def command(verb: str, *words: str, **options: str | bool | None) -> str:
    """Return a command of ours that works when it is pasted into a shell.

    Args:
        verb: the command.
        *words: its arguments, as they are meant: they are quoted here.
        **options: its options; None or False leaves one out.

    Example:
        >>> command("backfill", "orders", partitions="us west", force=True)
        "flowstone backfill orders --partitions 'us west' --force"
        >>> command("retry", "-x"), command("why", "orders", partition="-x")
        ('flowstone retry -- -x', 'flowstone why orders --partition=-x')
    """
    parts = ["flowstone", *verb.split()]
    given: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, str):
            quoted = shlex.quote(value)
            given.append(f"{option}={quoted}" if value.startswith("-") else f"{option} {quoted}")
        elif value:
            given.append(option)
    quoted_words = list(map(shlex.quote, words))
    if any(word.startswith("-") for word in words):
        return " ".join([*parts, *given, "--", *quoted_words])
    return " ".join([*parts, *quoted_words, *given])


class DatabaseError(FlowStoneError, RuntimeError):
    """The database cannot be used as it is."""


class DatabaseUnavailableError(DatabaseError, ConnectionError):
    """The database does not answer."""

    def __init__(self, target: str, why: str) -> None:
        self.target = target
        self.why = why
        _, fatal, reason = why.partition("FATAL: ")
        answer = f"refuses the connection: {reason.strip()}" if fatal else f"does not answer: {why}"
        super().__init__(
            f"PostgreSQL at {target} {answer}. Check that the server runs and that "
            "FLOWSTONE_DATABASE_URL is right; `flowstone doctor` checks each part."
        )

    def while_waiting_for(self, what: str, seconds: float) -> DatabaseUnavailableError:
        """Return this error as one that names what was waited for when the database went away and stayed away."""
        kind, _, identifier = what.partition(" ")
        remedy = f"{kind} {identifier} goes on by itself: ask again with `{command('status', identifier)}`"
        return DatabaseUnavailableError(
            self.target, f"{self.why}. It has been away for {seconds:.0f} s while this waited for {what}; {remedy}"
        )


class QuestionTooSlowError(DatabaseError, TimeoutError):
    """A question of a page took longer than pages may take; nothing was changed."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            f"The database did not answer within {seconds:g} s, which is as long as a page may ask. Narrow the "
            "filter, or ask again when the database is less busy."
        )


class PlanOutdatedError(DatabaseError):
    """A plan could not be placed: others committed or ended its steps all the while; planning again sees that."""

    def __init__(self, asset: str, partition: str) -> None:
        self.asset = asset
        self.partition = partition
        target = f"{asset} {partition}".rstrip()
        super().__init__(
            "The request could not be placed: each time that it was planned, others committed or ended a step of "
            f"it meanwhile, the last time {target}. Ask again, with fewer requests for the "
            "same targets at once."
        )


class SchemaVersionError(DatabaseError):
    """The tables are older or newer than this version of FlowStone."""

    def __init__(self, problem: str, *, remedy: str = "Run `flowstone db upgrade`.") -> None:
        super().__init__(f"{problem} {remedy}")


class MigrationChangedError(DatabaseError):
    """A migration that was applied differs from the one in this version."""

    def __init__(self, name: str, applied: str, found: str) -> None:
        self.name = name
        super().__init__(
            f"Migration {name} was applied with checksum {applied} but this version carries {found}. "
            "An applied migration must never change: install the version that applied it, or restore the file."
        )


class EmbeddedDatabaseError(DatabaseError):
    """The embedded PostgreSQL could not be started or joined."""
