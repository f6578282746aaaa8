"""Whatever dies between a commit and its message, it is sent: decided with the commit, sent by whoever lives.

Callbacks in the process that ran the task lose it: airflow#60858, airflow#11086, airflow#14422, prefect#7964.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.faults.conftest import check_promises
from tests.faults.fault_app import ITEMS
from tests.faults.fleet import check
from tests.notifications import notify_app
from tests.steering.crew import Crew

from flowstone import FlowStone
from flowstone.core.notification import NotificationState

QUEUES = {"assets": 2}


class Notified(Crew):
    """Workers and a client of an app that notifies; the client declares no rule and sends nothing."""

    app = "tests.notifications.notify_app"

    def client(self) -> FlowStone:
        return notify_app.make_flow(self.database_url, self.storage, known=False)

    @property
    def sent(self) -> list[dict[str, Any]]:
        file = self.directory / "sent"
        return (
            [json.loads(line) for line in file.read_text().rpartition("\n")[0].splitlines()]
            if file.exists()
            else []
        )

    @contextmanager
    def holding_claims(self) -> Iterator[None]:
        """Let nobody claim a notification meanwhile."""
        self.execute(
            "CREATE FUNCTION public.refuse_claims() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'not now'; END $$"
        )
        self.execute(
            "CREATE TRIGGER no_claims BEFORE UPDATE ON flowstone.notifications "
            "FOR EACH ROW EXECUTE FUNCTION public.refuse_claims()"
        )
        yield
        self.execute("DROP TRIGGER no_claims ON flowstone.notifications")

    def is_over(self, run_id: str) -> bool:
        """Whether a run has ended."""
        return self.rows("SELECT state FROM flowstone.runs WHERE id = %s", run_id) != [("running",)]

    def wait_sent(self, number: int) -> list[dict[str, Any]]:
        """Wait until so many messages were sent, and the tables know it."""
        states = [NotificationState.SENT] * number
        check(
            lambda: [one.state for one in self.flow.notifications.list()] == states,
            lambda: self.report(f"{number} messages, not {self.flow.notifications.list()}"),
        )
        return self.sent


@pytest.fixture
def crew(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Notified]:
    crew = Notified(tmp_path, database_url)
    try:
        yield crew
        check_promises(crew, request)
    finally:
        crew.close()


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_worker_killed_while_it_sends(crew: Notified, point: str) -> None:
    """Killed before its message left, none is lost; killed before it could say so, it is sent once more."""
    (crew.directory / f"die-{point}").touch()
    (first,) = crew.start(queues=QUEUES)
    run = crew.place("broken", ITEMS[0])
    assert first.wait_exit() == -9
    crew.wait_over([run])
    assert len(crew.sent) == (point == "after")
    crew.start(queues=QUEUES)
    sent = crew.wait_sent(1)
    assert len({one["id"] for one in sent}) == 1
    assert len(sent) == (1 if point == "before" else 2)
    assert sent[0]["run_id"] == run
    assert sent[0]["url"] == f"https://flow.example.com/run?id={run}"
    assert f"no rows of {ITEMS[0]}" in sent[0]["text"]


def test_a_worker_killed_right_after_the_commit(crew: Notified) -> None:
    """Nobody was there who could have sent anything; whoever comes later does."""
    (first,) = crew.start(queues=QUEUES)
    run = crew.place("gated", ITEMS[0])
    crew.wait_event("start", "gated")
    with crew.holding_claims():
        crew.open_gate(ITEMS[0])
        crew.wait_over([run])
        first.kill()
    (one,) = crew.flow.notifications.list()
    assert (one.state, crew.sent) == (NotificationState.PENDING, [])
    crew.start(queues=QUEUES)
    assert [one["counts"] for one in crew.wait_sent(1)] == [{"failed": 1}]


def test_lost_workers_are_reported_once_after_the_last_attempt(crew: Notified) -> None:
    """And what is not computed because of that; the attempts before are nobody's business."""
    run = crew.place("below", ITEMS[0])
    crew.supervise(1, until=lambda: crew.is_over(run), queues=QUEUES)
    crew.start(queues=QUEUES)
    (sent,) = crew.wait_sent(1)
    assert sent["counts"] == {"failed": 1, "upstream_failed": 1}
    assert "was lost while attempt" in sent["text"]
    assert len(crew.attempts("killed")) > 1


def test_a_process_that_declares_no_rule_decides_by_those_of_the_workers(crew: Notified) -> None:
    """It ends the steps of a worker that died, which it could as well do without knowing their assets."""
    (first,) = crew.start(queues=QUEUES)
    run = crew.place("gated", ITEMS[0])
    crew.wait_event("start", "gated")
    first.kill()
    step = crew.flow.runs.steps(run)[0]
    crew.execute("UPDATE flowstone.steps SET max_attempts = 1")
    crew.wait(lambda: crew.flow.parts.store.end_lost([step.id]) or crew.is_over(run), "the end of the step")
    assert [one.counts for one in crew.flow.notifications.list()] == [{"failed": 1}]
    crew.start(queues=QUEUES)
    crew.wait_sent(1)


def test_a_rule_that_is_gone_decides_nothing(crew: Notified) -> None:
    """Once a worker of the newer app has started."""
    crew.execute(
        "INSERT INTO flowstone.notify_rules (name, events, assets, wait_seconds) VALUES "
        "('gone', '{failed}', '{broken}', 0), ('other app', '{failed}', '{elsewhere}', 0)"
    )
    crew.start(queues=QUEUES)
    names = [row[0] for row in crew.rows("SELECT name FROM flowstone.notify_rules ORDER BY 1")]
    assert names == ["ops", "other app"]


def test_workers_give_up_what_nobody_can_send(crew: Notified) -> None:
    """A rule about everything, and renamed: which app it was of nobody knows, so it goes with time."""
    crew.execute(
        "INSERT INTO flowstone.notify_rules (name, events, wait_seconds, declared_at) "
        "VALUES ('renamed', '{failed}', 0, clock_timestamp() - interval '8 days')"
    )
    crew.execute(
        "INSERT INTO flowstone.notifications (rule, key, counts, notices, due_at, claim_after) VALUES "
        "('renamed', 'late', '{\"late\": 1}', '[]', clock_timestamp() - interval '8 days', '2000-01-01')"
    )
    crew.start(queues=QUEUES)
    crew.wait(
        lambda: crew.rows("SELECT state FROM flowstone.notifications") == [("given_up",)], "what is given up"
    )
    assert crew.rows("SELECT name FROM flowstone.notify_rules") == [("ops",)]
    assert [line.action for line in crew.flow.audit.latest()][:1] == ["notification.given_up"]
