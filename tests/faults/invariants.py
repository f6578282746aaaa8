"""What holds in the tables whatever happened, once everything is over."""

from __future__ import annotations

from typing import Any

from flowstone.stores.postgres.database import Database

_OVER = "('completed', 'reused', 'failed', 'upstream_failed', 'skipped', 'cancelled')"

# each returns the rows that break a promise
VIOLATIONS = {
    "a step is still active": f"SELECT id, asset, state FROM flowstone.steps WHERE state NOT IN {_OVER}",
    "a run is still open": "SELECT id, open_steps, active_steps FROM flowstone.runs WHERE state = 'running'",
    "a run counts wrongly": """
        SELECT r.id, r.open_steps, r.active_steps, r.failures, c.failures
        FROM flowstone.runs AS r
        CROSS JOIN LATERAL (
            SELECT count(*) AS failures FROM (
                SELECT s.state FROM flowstone.steps AS s WHERE s.run_id = r.id
                UNION ALL
                SELECT s.state FROM flowstone.run_joins AS j JOIN flowstone.steps AS s ON s.id = j.step_id
                WHERE j.run_id = r.id
            ) AS own WHERE own.state IN ('failed', 'upstream_failed')
        ) AS c
        WHERE r.open_steps <> 0 OR r.active_steps <> 0 OR r.failures <> c.failures
            OR (r.state = 'completed') <> (
                r.failures <= coalesce(r.allowed_failures, 0) AND r.cancellations = 0
            )""",
    "a target was committed twice in one run": """
        SELECT run_id, asset, partition, count(*) FROM flowstone.steps
        WHERE state = 'completed' GROUP BY 1, 2, 3 HAVING count(*) > 1""",
    "a completed step has not exactly one completed attempt": """
        SELECT s.id, s.asset, s.partition, count(a.step_id) FROM flowstone.steps AS s
        LEFT JOIN flowstone.attempts AS a ON a.step_id = s.id AND a.state = 'completed'
        WHERE s.state = 'completed' GROUP BY 1, 2, 3 HAVING count(a.step_id) <> 1""",
    "an unfinished step has a completed attempt": """
        SELECT s.id, s.state FROM flowstone.steps AS s
        JOIN flowstone.attempts AS a ON a.step_id = s.id AND a.state = 'completed'
        WHERE s.state <> 'completed'""",
    "an attempt is missing or counted twice": """
        SELECT s.id, s.asset, s.partition, s.state, s.attempt, count(a.step_id) FROM flowstone.steps AS s
        LEFT JOIN flowstone.attempts AS a ON a.step_id = s.id
        WHERE s.state IN ('completed', 'failed') GROUP BY s.id HAVING count(a.step_id) <> s.attempt""",
    "an attempt goes beyond the limit": "SELECT id, attempt FROM flowstone.steps WHERE attempt > max_attempts",
    "a completed step has no pointer": """
        SELECT s.id FROM flowstone.steps AS s
        WHERE s.state = 'completed' AND NOT s.is_item AND NOT EXISTS (
            SELECT FROM flowstone.current_outputs AS c WHERE c.asset = s.asset AND c.partition = s.partition
        )""",
    "a pointer names a step that is not completed": """
        SELECT c.asset, c.partition, c.step_id FROM flowstone.current_outputs AS c
        LEFT JOIN flowstone.steps AS s ON s.id = c.step_id AND s.state = 'completed' WHERE s.id IS NULL""",
    "a step started before its input was there": """
        SELECT child.id, parent.id, a.started_at, parent.finished_at FROM flowstone.step_edges AS e
        JOIN flowstone.steps AS parent ON parent.id = e.parent_id AND parent.state = 'completed'
        JOIN flowstone.steps AS child ON child.id = e.child_id
        JOIN flowstone.attempts AS a ON a.step_id = child.id
        WHERE a.started_at < parent.finished_at""",
    "a step read something else than its input": """
        SELECT e.child_id, e.parent_id FROM flowstone.step_edges AS e
        JOIN flowstone.steps AS child ON child.id = e.child_id AND child.state = 'completed'
        JOIN flowstone.steps AS parent ON parent.id = e.parent_id
        WHERE NOT (e.optional AND parent.state = 'skipped') AND NOT EXISTS (
            SELECT FROM flowstone.lineage AS l
            WHERE l.step_id = e.child_id AND l.upstream_step_id = e.parent_id
        )""",
    "a request for approval is open though its step does not wait": """
        SELECT c.id, c.step_id, c.state FROM flowstone.checkpoints AS c
        JOIN flowstone.steps AS s ON s.id = c.step_id
        WHERE (c.state = 'pending') AND s.state <> 'awaiting_approval'""",
    "a request was decided twice": """
        SELECT subject, count(*) FROM flowstone.audit
        WHERE action LIKE 'approval.%%' AND action <> 'approval.requested' GROUP BY 1 HAVING count(*) > 1""",
    "an item has a pointer": """
        SELECT s.id FROM flowstone.steps AS s
        JOIN flowstone.current_outputs AS c ON c.step_id = s.id WHERE s.is_item""",
    "a step was gathered without all of its items": """
        SELECT c.step_id, c.run_id FROM flowstone.scatters AS c
        JOIN flowstone.steps AS s ON s.id = c.step_id AND s.state = 'completed'
        WHERE c.is_open OR c.is_stopping
            OR c.total <> (SELECT count(*) FROM flowstone.scatter_items AS i WHERE i.run_id = c.run_id)
            OR s.started_at < (SELECT r.finished_at FROM flowstone.runs AS r WHERE r.id = c.run_id)""",
    "a job is left on the queue": """
        SELECT id, state, args FROM public.oban_jobs
        WHERE state IN ('available', 'scheduled', 'executing', 'retryable', 'suspended')""",
}


def violations(dsn: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return every broken promise with some of its rows; empty when all is well."""
    found = {}
    with Database(dsn).dedicated() as connection:
        for promise, sql in VIOLATIONS.items():
            rows = connection.execute(sql).fetchmany(5)  # type: ignore[arg-type]
            if rows:
                found[promise] = rows
    return found
