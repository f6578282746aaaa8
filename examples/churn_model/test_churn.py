"""Tests: the arithmetic alone, then the pipeline."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from churn_model import training
from churn_model.pipeline import build
from flowstone import Approval, FlowStone, State


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    def decide(approval: Approval) -> None:
        if approval.state == "pending":
            made.approvals.approve(approval.id, by="Ann")

    with build(notifiers=[decide]) as made:
        yield made


def test_training_finds_who_leaves() -> None:
    data = training.customers(2000, seed=1)
    untrained, trained = (training.train(data, steps=steps, rate=0.5) for steps in (0, 400))
    assert training.accuracy(trained, data) > training.accuracy(untrained, data) + 0.1


def test_a_model_is_trained_elsewhere_and_released_by_a_person(flow: FlowStone) -> None:
    assert len(flow.materialize_all("at_risk").value) == 10
    assert flow.load("released")["by"] == "Ann"
    stored = flow.history("model")[0].stored
    assert stored is not None
    assert stored.metadata["process"] != os.getpid()


def test_a_model_that_guesses_is_not_put_before_people(flow: FlowStone) -> None:
    result = flow.materialize_all("at_risk", config={"model": {"steps": 0}})
    states = {step.asset: step.state for step in flow.runs.steps(result.run_id)}
    assert states["evaluation"] is State.FAILED
    assert states["released"] is State.UPSTREAM_FAILED
    assert flow.approvals.list(state=None) == []
