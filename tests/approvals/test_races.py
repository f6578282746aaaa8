"""Several people, the clock and a cancel at once: one of them decides, the others learn of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest
from tests.approvals.crew import Askers
from tests.faults.fault_app import ITEMS
from tests.stores.conformance.case import Scene

from flowstone.core.approval import Approval, ApprovalState
from flowstone.core.audit import AuditFilter
from flowstone.core.outcome import Suspended
from flowstone.core.state import State
from flowstone.core.step import NewStep
from flowstone.errors import ApprovalDecidedError

ROUNDS = 20


def at_once(*calls: Callable[[], object]) -> list[object]:
    """Call everything at the same moment; return what came of each, results and exceptions."""
    barrier = threading.Barrier(len(calls))
    answers: list[object] = [None] * len(calls)

    def run(index: int, call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            answers[index] = call()
        except Exception as error:
            answers[index] = error

    threads = [threading.Thread(target=run, args=one) for one in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.fixture
def scene(crew: Askers) -> Scene:
    return Scene(crew.store)


def ask(scene: Scene, number: int, **fields: object) -> Approval:
    """Let a step ask whose reader waits for it."""
    first, _ = scene.open(f"run-{number}", [NewStep(f"a{number}", ""), NewStep(f"b{number}", "", inputs=(0,))])
    scene.end(scene.claim(first.id), Suspended("Go on?", **fields))  # type: ignore[arg-type]
    return scene.store.approvals.of_step(first.id)[-1]


def decide(scene: Scene, one: Approval, approve: bool, by: str) -> Approval:
    """Say yes or no."""
    return scene.store.approvals.decide(one.id, approve=approve, by=by)


def decisions(scene: Scene, one: Approval) -> list[str]:
    """What the audit log says became of a request."""
    log = scene.store.audit.lines(AuditFilter(subject=f"approval:{one.id}"))
    return [line.action for line in log if line.action != "approval.requested"]


def test_two_people_at_once(scene: Scene) -> None:
    for number in range(ROUNDS):
        one = ask(scene, number)
        people = {"ann": number % 2 == 0, "bob": number % 3 == 0, "cid": True}
        answers = at_once(*(partial(decide, scene, one, yes, name) for name, yes in people.items()))
        (decided,) = [answer for answer in answers if isinstance(answer, Approval)]
        reported = [answer for answer in answers if isinstance(answer, ApprovalDecidedError)]
        assert len(reported) == 2, answers
        assert decided.decided_by is not None
        assert decided.approved == people[decided.decided_by]
        for error in reported:
            assert (error.decided_by, error.state) == (decided.decided_by, decided.state)
            assert error.decided_at == decided.decided_at
        assert decisions(scene, one) == [f"approval.{decided.state}"]
        expected = State.PENDING if decided.approved else State.FAILED
        assert scene.state(one.step_id) is expected


def test_a_decision_and_a_cancel_at_once(scene: Scene) -> None:
    for number in range(ROUNDS):
        one = ask(scene, number)
        message, state = at_once(
            partial(decide, scene, one, number % 2 == 0, "ann"),
            partial(scene.store.ledger.request_cancel, one.step_id),
        )
        found = scene.store.approvals.get(one.id)
        assert found is not None
        assert decisions(scene, one) == [f"approval.{found.state}"]
        if isinstance(message, Approval):
            # approved and cancelled right after it, or rejected and over when the cancel came
            assert state is (State.CANCELLED if message.approved else State.FAILED)
        else:
            assert isinstance(message, ApprovalDecidedError)
            assert (message.state, state) == ("cancelled", State.CANCELLED)
        assert scene.run_state(f"run-{number}") is State.FAILED


def test_a_decision_a_run_cancel_and_the_clock_at_once(scene: Scene) -> None:
    meanings = ("approve", "reject", "skip")
    for number in range(ROUNDS):
        one = ask(scene, number, timeout_seconds=0.004, on_timeout=meanings[number % 3])
        approvals = scene.store.approvals
        message, *_ = at_once(
            partial(decide, scene, one, True, "ann"),
            approvals.expire_due,
            approvals.expire_due,
            partial(scene.store.ledger.cancel_run, f"run-{number}"),
        )
        while approvals.expire_due():
            pass
        found = approvals.get(one.id)
        assert found is not None
        assert found.state.is_decided
        assert decisions(scene, one) == [f"approval.{found.state}"]
        assert isinstance(message, Approval) == (found.state is ApprovalState.APPROVED), message
        assert scene.state(one.step_id).is_terminal
        assert scene.run_state(f"run-{number}") is not State.RUNNING


def test_many_requests_decided_beside_the_workers(whole: Askers) -> None:
    """Workers take, commit, expire and sweep while people decide; nothing is lost and nothing waits for ever."""
    whole.start(2, queues={"assets": 4, "backfill": 4, "checkpoints": 2})
    bought = whole.place_many("bought", 12, max_concurrency=3)
    brief = whole.place_many("brief", 12)

    def decide_all(by: str) -> int:
        decided = 0
        while whole.flow.runs.get(bought).state is State.RUNNING:
            for one in whole.flow.approvals.list():
                if one.asset == "bought":
                    try:
                        whole.flow.approvals.approve(one.id, by=by)
                        decided += 1
                    except ApprovalDecidedError:
                        pass
        return decided

    ann, bob = at_once(lambda: decide_all("ann"), lambda: decide_all("bob"))
    assert isinstance(ann, int), ann
    assert isinstance(bob, int), bob
    assert ann + bob == 12
    whole.wait_over([bought, brief])
    assert len(whole.events("start", "bought")) == 24
    assert len(whole.events("end", "brief")) == 12
    assert whole.flow.load("bought", partition=ITEMS[0]).split(" by ")[1] in ("ann", "bob")
