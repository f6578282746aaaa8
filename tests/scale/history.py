"""Two years of history in the tables, written by statements of the server: no rows travel (sql/history.sql).

`fill` writes what the product's own statements would have left: runs with their counters, steps with attempts,
edges, lineage and pointers, ended large backfills with their ranges (decision 12), checks, ticks, run keys,
approvals, audit; and work in progress: an open backfill, a run at work, a queue without a worker, a full limit, an
open breaker. `tests.faults.invariants` holds for what is over. All times count back from now, so that "the last
hour" is never empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.scale.app import (
    LARGE,
    REGIONS,
    SCHEDULES,
    Scale,
    checked,
    graph,
    limits_of,
    queue_of,
    sensor_names,
)

from flowstone.core.limits import stored_limits
from flowstone.sql import load_sql, sections
from flowstone.stores.postgres.database import Database
from flowstone.stores.postgres.rows import to_json

if TYPE_CHECKING:
    from psycopg import Connection

_STATEMENTS = sections("history", "tests.scale")
_LOADED = ("steps", "attempts", "step_edges", "lineage", "runs", "check_results", "ticks", "run_keys", "audit")


class History:
    """Writes the history of a scale into an empty, migrated database.

    Args:
        connection: to the database, in no transaction.
        scale: how much.
    """

    def __init__(self, connection: Connection[Any], scale: Scale) -> None:
        self._connection = connection
        self._scale = scale
        self._next = 1
        self._pruned_base = self._full_base = self._newest_full = 0

    def write(self) -> None:
        """Write everything; indexes are made once, at the end."""
        definitions = self._drop_indexes()
        self._prepare()
        self._backfills()
        self._layers()
        self._single()
        self._grids()
        self._at_work()
        self._do("fleet")
        self._do("attempts")
        for definition in definitions:
            self._do(definition)
        self._do("ANALYZE flowstone.steps")
        self._do("current")
        ended = self._connection.execute(
            "SELECT array_agg(id) FROM flowstone.runs WHERE state <> 'running'"
        ).fetchone()
        assert ended is not None
        self._connection.execute(load_sql("ledger/record_counts"), {"runs": ended[0]})
        last_pruned = f"backfill-{self._scale.pruned:06}"
        self._do("about_runs", large=LARGE, hours=self._scale.hours, last_pruned=last_pruned)
        self._follow_ups()
        for sequence, value in (("step_ids", self._next), ("tokens", 10_000_000_000)):
            self._do(
                "SELECT setval(%(sequence)s::regclass, %(value)s)", sequence=f"flowstone.{sequence}", value=value
            )

    def _do(self, statement: str, **parameters: object) -> None:
        self._connection.execute(_STATEMENTS.get(statement, statement), parameters or None)

    def _take(self, number: int) -> int:
        """Return the first of so many ids."""
        self._next += number
        return self._next - number

    def _drop_indexes(self) -> list[str]:
        """Drop what is not a key of the loaded tables; return what makes it again."""
        found = self._connection.execute(
            """
            SELECT i.indexdef, i.indexname FROM pg_indexes AS i
            WHERE i.schemaname = 'flowstone' AND i.tablename = ANY(%s)
                AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conname = i.indexname)
            """,
            [list(_LOADED)],
        ).fetchall()
        for _, name in found:
            self._do(f'DROP INDEX flowstone."{name}"')
        return [definition for definition, _ in found]

    def _prepare(self) -> None:
        self._do("SET TIME ZONE 'UTC'")
        for statement in _STATEMENTS["helpers"].split(";\n"):
            self._connection.execute(statement)
        places: dict[tuple[str, bool], int] = {}
        nodes, parents = [], []
        for node in graph(self._scale):
            place = places[node.kind, node.daily] = places.get((node.kind, node.daily), -1) + 1
            limits = to_json(stored_limits(limits_of(node))) if limits_of(node) else None
            nodes.append((node.number, node.name, node.daily, node.kind, queue_of(node), node.layer,
                          str(1 + node.number % 4), limits, place))  # fmt: skip
            parents += [(node.number, parent, f"input_{at}") for at, parent in enumerate(node.parents)]
        with self._connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO nodes VALUES ({', '.join(['%s'] * 9)})", nodes)
            cursor.executemany("INSERT INTO parents VALUES (%s, %s, %s)", parents)
        self._do("below")
        self._do(
            """
            CREATE TEMP TABLE chunks AS
            SELECT min(n)::integer AS first, count(*)::integer AS total,
                array_agg(pg_temp.hour(n) ORDER BY n) AS partitions
            FROM generate_series(0, %(hours)s - 1) AS n GROUP BY n / 1000
            """,
            hours=self._scale.hours,
        )

    def _backfills(self) -> None:
        scale = self._scale
        kept = scale.kept_days * 24
        self._pruned_base = self._take(kept * scale.pruned)
        for number in range(scale.pruned):
            run = self._backfill_run(number, 720 - number * 2)
            self._do("pruned", **run, base=self._pruned_base + number * kept, first=number * kept, kept=kept)
        for number in range(scale.full):
            cancelled = number == scale.full - 2
            # the newest one some days ago, however many there are
            ago = 70 - number * min(9, 63 / scale.full)
            run = self._backfill_run(scale.pruned + number, ago, cancelled=cancelled)
            base = self._take(scale.hours)
            self._full_base = self._full_base or base
            self._newest_full = base
            self._do("full", **run, base=base, hours=scale.hours, cancelled=cancelled)
        days = scale.pruned * scale.kept_days + 4 * scale.kept_days
        base = self._take(days)
        self._do("daily_of_large", base=base, days=days)
        self._do("layered_runs", base=base, kind="backfill", selection="events_daily", tags=None)
        self._do(
            "read_hours",
            base=base,
            days=days,
            pruned_days=scale.pruned * scale.kept_days,
            pruned_base=self._pruned_base,
            full_base=self._full_base,
        )

    def _backfill_run(self, number: int, days_ago: float, *, cancelled: bool = False) -> dict[str, Any]:
        hours = self._scale.hours
        tried = -(-hours * 6 // 10) if cancelled else hours
        failures = sum(1 for n in range(7, tried, 331))
        if number < self._scale.pruned:
            failures = 0
        run = {
            "run": f"backfill-{number + 1:06}",
            "asset": LARGE,
            "created": self._ago(f"{days_ago} days"),
            "takes": self._span("100 minutes"),
        }
        state = "failed" if failures else "completed"
        self._do("run", **_but(run, "asset"), kind="backfill", selection=LARGE, state=state, open=0,
                 failures=failures, cancellations=hours - tried)  # fmt: skip
        self._do("ranges", run=run["run"], asset=LARGE, begun=hours)
        return run

    def _ago(self, interval: str) -> object:
        return self._connection.execute("SELECT now() - %s::interval", [interval]).fetchone()[0]  # type: ignore[index]

    def _span(self, interval: str) -> object:
        return self._connection.execute("SELECT %s::interval", [interval]).fetchone()[0]  # type: ignore[index]

    def _layers(self) -> None:
        for daily, runs, prefix in ((False, self._scale.nights, "nightly"), (True, self._scale.days, "days")):
            nodes = [n for n in graph(self._scale) if n.kind == "nightly" and n.daily == daily]
            base = self._take(len(nodes) * runs)
            failing = next((n.number for n in nodes if n.layer == 1), nodes[0].number)
            about = {"base": base, "runs": runs, "width": len(nodes), "daily": daily}
            self._do("layered", **about, prefix=prefix, fails=failing, fails_every=19, apart="1 day",
                     ago="5 hours" if daily else "8 hours")  # fmt: skip
            self._do("layered_runs", base=base, kind="schedule", selection="tag:nightly", tags=["nightly"])
            self._do("edges", **about)
            self._do("read_parents", base=base)

    def _single(self) -> None:
        scale = self._scale
        fed = [node for node in graph(scale) if node.kind == "sensor"]
        for name, node in zip(sensor_names(scale), fed, strict=False):
            self._runs_of(node, "sensor", name, scale.sensed, "20 minutes")
            self._do("run_keys", name=name, runs=scale.sensed)
        for node in graph(scale):
            if node.kind == "condition":
                self._runs_of(node, "condition", node.name, scale.conditioned, "3 hours")

    def _runs_of(self, node: Any, kind: str, name: str, runs: int, apart: str) -> None:
        base = self._take(runs)
        limits = to_json(stored_limits(limits_of(node))) if limits_of(node) else None
        self._do("single", base=base, kind=kind, name=name, asset=node.name, queue=queue_of(node), runs=runs,
                 apart=apart, limits=limits)  # fmt: skip
        self._do("single_runs", base=base, kind=kind)

    def _grids(self) -> None:
        scale = self._scale
        base = self._take(scale.days * len(REGIONS))
        self._do("grid", base=base, days=scale.days, regions=list(REGIONS))
        self._do("layered_runs", base=base, kind="schedule", selection="sales", tags=None)
        self._do("keys", keys=scale.customers)
        base = self._take(scale.customers + 3)
        self._do("invoices", base=base, run="invoices-000001", keys=scale.customers)
        self._do("layered_runs", base=base, kind="backfill", selection="invoices", tags=None)
        self._do("decided", base=base)

    def _at_work(self) -> None:
        """Write what is open now: all of it has higher ids than what is over."""
        scale = self._scale
        opened: list[tuple[str, str, str, int, str]] = []
        base, run = self._take(scale.pending + 1), "invoices-000002"
        opened.append((run, "backfill", "invoices", scale.pending, "50 minutes"))
        self._do("pending", base=base, run=run, pending=scale.pending)
        nodes = [n for n in graph(scale) if n.kind == "nightly" and not n.daily]
        base, run = self._take(len(nodes)), "nightly-999999"
        self._do("at_work", base=base, run=run)
        self._do("edges", base=base, runs=1, width=len(nodes), daily=False)
        done = sum(1 for n in nodes if n.layer == 0)
        opened.append((run, "schedule", "tag:nightly", len(nodes) - done, "3 minutes"))
        base, run = self._take(scale.backlog), "train-000001"
        self._do("backlog", base=base, run=run, number=scale.backlog)
        opened.append((run, "materialize_all", "train", scale.backlog, "40 minutes"))
        base, run = self._take(scale.begun), "backfill-999999"
        created = self._ago("30 minutes")
        self._do("begun", base=base, run=run, asset=LARGE, begun=scale.begun, created=created)
        self._do("ranges", run=run, asset=LARGE, begun=scale.begun)
        opened.append((run, "backfill", LARGE, scale.hours - scale.begun + 20, "30 minutes"))
        for run, kind, selection, left, ago in opened:
            self._do("run", run=run, kind=kind, selection=selection, state="running", open=left, failures=0,
                     cancellations=0, created=self._ago(ago), takes=self._span("0"))  # fmt: skip
        self._do("jobs")
        # those that the full limit keeps from starting
        self._do("UPDATE flowstone.runs SET max_concurrency = NULL WHERE state = 'running' AND kind <> 'backfill'")

    def _follow_ups(self) -> None:
        scale = self._scale
        self._do("checks", assets=[n.name for n in checked(scale)], large=LARGE, newest=self._newest_full)
        for name, _, _, _ in SCHEDULES:
            self._automation(
                "schedule", name, "nightly" if name == "nightly" else f"none-{name}", scale.nights, "1 day"
            )
        for place, name in enumerate(sensor_names(scale)):
            self._automation(
                "sensor", name, f"sensor-{name}", scale.sensed, "20 minutes", failures=2 * (place == 0)
            )
        for node in graph(scale):
            if node.kind == "condition":
                self._automation("condition", node.name, f"condition-{node.name}", scale.conditioned, "3 hours")
        self._do("audit", lines=20_000 if scale.hours > 10_000 else 200)

    def _automation(self, kind: str, name: str, prefix: str, runs: int, apart: str, *, failures: int = 0) -> None:
        cursor = "2026-01-01/file-000100" if kind == "sensor" else None
        self._do("automation", kind=kind, name=name, paused=name in ("monthly", "inbox-1"), cursor=cursor,
                 failures=failures)  # fmt: skip
        self._do("ticks", kind=kind, name=name, prefix=prefix, runs=runs, apart=apart)


def _but(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def fill(dsn: str, scale: Scale) -> None:
    """Write the history of a scale into a migrated database, with statistics as after some nights."""
    with Database(dsn).dedicated() as connection:
        with connection.transaction():
            History(connection, scale).write()
        connection.execute("VACUUM (ANALYZE)")
