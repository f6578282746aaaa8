"""Worker nodes notify people: every request and every decision, by any node, also after an accident."""

from __future__ import annotations

from collections import Counter

from tests.approvals.approval_app import NOTIFIED
from tests.approvals.crew import Askers
from tests.faults.fault_app import ITEMS
from tests.faults.fleet import check


def reported(crew: Askers) -> list[str]:
    """What the notifier of the app wrote."""
    file = crew.directory / "announced"
    return file.read_text().splitlines() if file.exists() else []


def test_nodes_report_of_requests_and_decisions(whole: Askers) -> None:
    (whole.directory / "accident").touch()
    queues = {"assets": 4, "checkpoints": 1}
    whole.start(2, queues=queues, **{NOTIFIED: "1"})
    for item in ITEMS[:4]:
        whole.flow.schedule("bought", partition=item)
    requests = whole.requested(4)
    pending = {f"{one.id} pending" for one in requests}
    check(lambda: set(reported(whole)) == pending, lambda: whole.report(f"{pending}, not {reported(whole)}"))
    for one in requests[:3]:
        whole.flow.approvals.approve(one.id)
    whole.flow.cancel_job(str(requests[3].step_id))
    both = pending | {f"{one.id} approved" for one in requests[:3]} | {f"{requests[3].id} cancelled"}
    check(lambda: set(reported(whole)) == both, lambda: whole.report(f"{both}, not {reported(whole)}"))
    # each by one node, as no lease ran out
    assert set(Counter(reported(whole)).values()) == {1}
    assert not (whole.directory / "accident").exists()
    assert any("nobody there" in worker.message for worker in whole.workers)
