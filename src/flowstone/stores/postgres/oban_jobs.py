"""Oban's table as this store uses it: the one place that knows the contract of `oban_jobs`.

A job is inserted, moved and closed by the transaction that does the same to its step; Oban itself is only notified
through its own channel. Ids are drawn from Oban's sequence beforehand, so that step and job know each other
without a second write.

The second half makes the tables, in `public` or in the schema of the project. Elixir's Oban, an older Oban for
Python or a person may have made `oban_jobs` before: what is missing is added, nothing that is there is changed,
and where that would not be enough, the reason is said instead.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from flowstone.core.state import State
from flowstone.errors import DatabaseError
from flowstone.sql import load_sql
from flowstone.stores.postgres.database import Database, with_identifiers
from flowstone.stores.postgres.rows import JOB_STATES, MovedStep, to_json
from flowstone.stores.postgres.sql import fetch_column, fetch_one, fetch_value

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow


WORKER = "flowstone.executors.oban.job.StepWorker"
"""Name of the Oban worker class in every job of ours."""

EXPIRY_WORKER = "flowstone.Expiry"
"""Name in the `worker` column of the jobs that end the time of a request for approval.

Statements that look for our rows write both names out, because only then do the partial indexes serve them.
"""

_RELEASED = frozenset({State.PENDING, State.SCHEDULED, State.WAITING, State.AWAITING_APPROVAL})
_FAILED = frozenset({State.FAILED, State.RETRYING})


def place(
    connection: Connection[TupleRow],
    steps: Sequence[int],
    *,
    queues: Iterable[str] = (),
    settled: Sequence[Mapping[str, object]] = (),
) -> None:
    """Insert the jobs of steps that have a job id, move others, notify nodes of what there is to do, in one go.

    Args:
        connection: with a transaction open.
        steps: the steps.
        queues: queues that have something to do beside that.
        settled: see `settled_jobs`.
    """
    if not steps and not settled:
        announce(connection, queues)
        return
    parameters = {"steps": list(steps), "worker": WORKER, "jobs": to_json(settled), "queues": sorted(queues)}
    connection.execute(load_sql("queue/place"), parameters)


def settled_jobs(moved: Iterable[MovedStep], delays: Mapping[int, object]) -> list[dict[str, object]]:
    """Return how jobs move along with their steps, for `place`.

    Args:
        moved: the steps.
        delays: seconds until those that go on later, by step.
    """
    return [
        # a retry that is due now does not wait for Oban's stager, which polls once a second
        {
            "id": step.job_id,
            "step_id": step.id,
            "state": "available" if delay == 0 and not step.state.is_terminal else JOB_STATES[step.state],
            "delay_seconds": delay,
            "releases": step.state in _RELEASED,
            "failed": step.state in _FAILED,
        }
        for step, delay in ((step, delays.get(step.id)) for step in moved)
        if step.job_id is not None and step.job_id > 0 and step.state in JOB_STATES
    ]


def draw_ids(connection: Connection[TupleRow], steps: Sequence[int]) -> list[int]:
    """Give job ids to steps that were begun from a range, and go on later; return those to `place`."""
    return fetch_column(connection, int, "ranges/place_again", {"steps": list(steps)}) if steps else []


def range_queues(connection: Connection[TupleRow], runs: Sequence[str]) -> set[str]:
    """Return the queues on which runs have partitions that nobody has begun."""
    if not runs:
        return set()
    return set(fetch_column(connection, str, "ranges/queues", {"runs": list(runs)}))


def raise_priority(connection: Connection[TupleRow], jobs: Sequence[tuple[int, int]]) -> None:
    """Let queued jobs overtake: (job id, new priority)."""
    if jobs:
        ids, priorities = [job for job, _ in jobs], [priority for _, priority in jobs]
        connection.execute(load_sql("queue/raise_priority"), {"ids": ids, "priorities": priorities})


def advance_jobs(connection: Connection[TupleRow], jobs: Mapping[int, int]) -> None:
    """Have steps that wait for inputs poll soon: step id by job id."""
    if jobs:
        parameters = {"ids": list(jobs), "steps": list(jobs.values())}
        connection.execute(load_sql("queue/advance_jobs"), parameters)


def announce(connection: Connection[TupleRow], queues: Iterable[str]) -> None:
    """Notify Oban's nodes which queues have new jobs, in one statement."""
    payloads = [json.dumps({"queue": queue}) for queue in sorted(queues)]
    if payloads:
        connection.execute(load_sql("queue/notify_inserted"), {"payloads": payloads})


log = logging.getLogger(__name__)

_STATES = frozenset(
    {"available", "scheduled", "suspended", "executing", "retryable", "completed", "discarded", "cancelled"}
)
_COLUMNS = frozenset(
    {"id", "state", "queue", "worker", "attempt", "max_attempts", "priority", "args", "meta", "tags", "errors"}
    | {"attempted_by", "scheduled_at", "attempted_at", "cancelled_at", "completed_at", "discarded_at"}
)
_INDEXES = ("flowstone_available", "flowstone_due")
# storage parameters and functions that another program made are theirs
_STORAGE = re.compile(r"ALTER TABLE [\w.]*oban_jobs SET \(.*?\);", re.DOTALL)
_FUNCTION = re.compile(r"CREATE OR REPLACE FUNCTION .*?LANGUAGE plpgsql;", re.DOTALL)


class Structure(NamedTuple):
    """What there is of Oban's tables.

    Args:
        has_jobs: whether `oban_jobs` is there.
        has_leaders: whether `oban_leaders` is there.
        has_producers: whether `oban_producers` is there.
        states: labels of its type of states.
        columns: columns of `oban_jobs`.
        indexes: its valid indexes.
        has_sequence: whether its ids come from a sequence of its own.
        owner: who owns it.
        role: who asks.
        owns: whether the one who asks may change it.
        has_function: whether the function that estimates counts is there.
    """

    has_jobs: bool
    has_leaders: bool
    has_producers: bool
    states: list[str]
    columns: list[str]
    indexes: list[str]
    has_sequence: bool | None
    owner: str | None
    role: str
    owns: bool | None
    has_function: bool

    @property
    def missing(self) -> list[str]:
        """What FlowStone cannot do without, as people read it; `db upgrade` adds it when it may."""
        if not self.has_jobs:
            return ["the table oban_jobs"]
        tables = {"oban_leaders": self.has_leaders, "oban_producers": self.has_producers}
        found = [f"the table {name}" for name, there in tables.items() if not there]
        return found + [f"the state {name!r}" for name in sorted(_STATES - set(self.states))]

    @property
    def misfits(self) -> list[str]:
        """What keeps FlowStone from using a table that others made, and what its owner can do about it."""
        if not self.has_jobs:
            return []
        found = []
        if gone := sorted(_COLUMNS - set(self.columns)):
            found.append(
                f"oban_jobs has no column {', '.join(gone)}: it is older than version 11 of Oban's migrations; "
                "run those up to 12 or later"
            )
        if self.has_sequence is False:
            found.append(
                "the ids of oban_jobs do not come from a sequence that it owns; make it so with "
                "ALTER SEQUENCE ... OWNED BY public.oban_jobs.id"
            )
        return found

    @property
    def slow(self) -> list[str]:
        """Indexes that are missing: work is found all the same, but not fast beside many rows of others."""
        return [name for name in _INDEXES if name not in self.indexes]


def available() -> bool:
    """Whether the package is installed here."""
    return importlib.util.find_spec("oban") is not None


def structure(connection: Connection[TupleRow]) -> Structure:
    """Return what there is of Oban's tables."""
    found = fetch_one(connection, Structure, "queue/structure")
    assert found is not None
    return found


def unusable(connection: Connection[TupleRow]) -> str | None:
    """Return what keeps everybody from placing work in Oban's tables; None when nothing does."""
    found = structure(connection)
    wrong = found.misfits + [f"{one} is missing" for one in found.missing]
    return f"Oban's tables do not fit: {'; '.join(wrong)}" if wrong else None


def problems(database: Database) -> list[str]:
    """Return what keeps this role from working with Oban's tables, as people read it; empty when nothing does.

    Looks at the catalogs, and writes a job in a transaction that is rolled back.
    """
    with database.connection() as connection:
        found = structure(connection)
        if wrong := found.misfits + [f"{one} is missing" for one in found.missing]:
            return wrong
        denied = fetch_column(connection, str, "queue/privileges")
        if denied:
            return [f"the role {found.role!r} may not work with them: {'; '.join(denied)}"]
        return _refusals(connection)


def install(connection: Connection[TupleRow], *, schema: str) -> list[str]:
    """Create the tables, or add what is missing to those that another program made.

    Args:
        connection: without a transaction: a new state can be used only after the one that adds it.
        schema: where they lie.

    Returns:
        What was added, for people.

    Raises:
        DatabaseError: they cannot be made to fit; says why, and nothing is changed.
    """
    if not available():
        return []
    found = structure(connection)
    _refuse(found.misfits, schema)
    made = not found.has_jobs
    added = ["Oban: its tables"] if made else [f"Oban: {one}" for one in found.missing]
    if found.missing:
        _add(connection, found, schema)
        found = structure(connection)
    if found.slow and not found.owns:
        log.warning(
            "The indexes %s could not be added: oban_jobs belongs to %s. Without them FlowStone's workers are slow"
            " beside many jobs of others in a queue of the same name. Run `flowstone db upgrade` once as %s.",
            ", ".join(found.slow),
            found.owner,
            found.owner,
        )
    elif found.slow:
        with _explaining(schema, found), connection.transaction():
            connection.execute(load_sql("queue/index_available"))
            connection.execute(load_sql("queue/index_due"))
        added += [] if made else [f"Oban: the index {one}" for one in found.slow]
    _refuse(_refusals(connection), schema)
    return added


def _add(connection: Connection[TupleRow], found: Structure, schema: str) -> None:
    """Run Oban's own statements, which leave alone what is there."""
    from oban.schema import install_sql

    text = install_sql(schema)
    if found.has_jobs:
        text = _STORAGE.sub("", text)
        text = _FUNCTION.sub("", text) if found.has_function else text
        log.info("Adding what Oban's tables do not have yet: %s.", ", ".join(found.missing))
    with _explaining(schema, found), connection.transaction():
        connection.execute(with_identifiers(load_sql("queue/schema"), schema=schema))
        connection.execute(text, prepare=False)


@contextmanager
def _explaining(schema: str, found: Structure) -> Iterator[None]:
    """Say what could not be added to a table of another program."""
    from psycopg import errors

    try:
        yield
    except errors.InsufficientPrivilege as error:
        if not found.has_jobs:
            raise DatabaseError(
                f"Oban's tables could not be made in the schema {schema}: {str(error).splitlines()[0]}. Grant the "
                f"role {found.role!r} CREATE there, or run `flowstone db upgrade` as one that has it."
            ) from error
        missing = ", ".join([*found.missing, *found.slow])
        raise DatabaseError(
            f"Oban's tables in the schema {schema} need {missing}, which the role {found.role!r} may not add: "
            f"{str(error).splitlines()[0]}. They belong to {found.owner!r}: run `flowstone db upgrade` once as "
            "that role; nothing that is there is changed by it."
        ) from error


def _refuse(reasons: list[str], schema: str) -> None:
    if reasons:
        raise DatabaseError(
            f"Oban's tables in the schema {schema}, which another program made, do not fit: {'; '.join(reasons)}. "
            "Nothing of them was changed. Then run `flowstone db upgrade` again."
        )


def _refusals(connection: Connection[TupleRow]) -> list[str]:
    """Return why the table does not take jobs as we write them."""
    from psycopg import Rollback, errors

    edges = (
        {"state": "available", "priority": 0, "attempt": 0, "max_attempts": 1},
        {"state": "suspended", "priority": 9, "attempt": 1000, "max_attempts": 1000},
    )
    for edge in edges:
        try:
            with connection.transaction():
                job_id = fetch_value(connection, int, "queue/probe", edge)
                connection.execute(load_sql("queue/probe_end"), {"id": job_id})
                raise Rollback
        except errors.ReadOnlySqlTransaction:
            return []  # a server that takes no writes is reported elsewhere
        except errors.CheckViolation as error:
            return [_constraint(error, edge["priority"])]
        except (errors.ProgrammingError, errors.IntegrityError, errors.DataError) as error:
            return [f"it does not take FlowStone's jobs: {str(error).splitlines()[0]}"]
    return []


def _constraint(error: Exception, priority: object) -> str:
    name = getattr(getattr(error, "diag", None), "constraint_name", None)
    if name == "priority_range":
        return (
            "the constraint priority_range of oban_jobs allows the priorities 0 to 3 only (version 11 of Oban's "
            "migrations in Elixir), and FlowStone uses 0 to 9. Migrate it to version 12 or later there, or run "
            "ALTER TABLE public.oban_jobs DROP CONSTRAINT priority_range"
        )
    return f"the constraint {name} of oban_jobs refuses FlowStone's jobs (priorities 0 to 9, 1 to 1000 attempts)"
