"""Trains twice in memory: once too little, once well, with a person who releases it. `python -m churn_model`."""

from __future__ import annotations

from churn_model.pipeline import build
from flowstone import Approval, Settings


def ann(approval: Approval) -> None:
    """Stands for a person at the dashboard, or at `flowstone approve`."""
    if approval.state == "pending":
        print("Ann is asked:", approval.message)
        flow.approvals.approve(approval.id, by="Ann", comment="good enough for a letter")


flow = build(notifiers=[ann], settings=Settings())  # in memory, whatever the environment says

if __name__ == "__main__":
    careless = flow.materialize_all("at_risk", config={"model": {"steps": 0}})
    print("not trained:", next(iter(careless.errors.values())).splitlines()[0])
    done = flow.materialize_all("at_risk", force_deps=True)
    print("at risk:", done.value)
    print("released by:", flow.load("released")["by"])
