"""The assets: data, split, model, evaluation, approval, predictions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from churn_model import training
from churn_model.training import Model, Split
from flowstone import Asset, AssetContext, AwaitApproval, CheckResult, FlowStone, asset, check

BASELINE = 0.7
"""A model that is right less often than this is of no use."""


@dataclass
class Data:
    """How much data there is."""

    customers: int = 2000
    seed: int = 7


@dataclass
class Training:
    """How the model is trained; each run may have its own."""

    steps: int = 400
    rate: float = 0.5


@asset(config=Data, group="data")
def customers(context: AssetContext) -> Split:
    """All customers, invented."""
    return training.customers(context.config.customers, context.config.seed)


@asset(group="data")
def split(customers: Split) -> dict[str, Split]:
    """Four fifths to learn from, the rest to judge by."""
    border = len(customers["left"]) * 4 // 5
    return {
        "train": {"features": customers["features"][:border], "left": customers["left"][:border]},
        "test": {"features": customers["features"][border:], "left": customers["left"][border:]},
    }


@asset(isolation="process", timeout=timedelta(minutes=5), config=Training, group="model")
def model(context: AssetContext, split: dict[str, Split]) -> Model:
    """The trained model, made in a process of its own: it may crash, leak, or run out of time without harm."""
    config: Training = context.config
    context.metadata["process"] = os.getpid()
    return training.train(split["train"], steps=config.steps, rate=config.rate)


@asset(group="model")
def evaluation(context: AssetContext, model: Model, split: dict[str, Split]) -> dict[str, float]:
    """How often the model is right, on data that it has not seen."""
    found = {name: training.accuracy(model, data) for name, data in split.items()}
    context.metadata.update(found)
    return found


@check(evaluation, blocking=True)
def better_than_guessing(evaluation: dict[str, float]) -> CheckResult:
    """A model below the baseline ends here: nobody is asked about it."""
    right = evaluation["test"]
    return CheckResult(right > BASELINE, description=f"right for {right:.1%}", metadata={"accuracy": right})


@check(evaluation, severity="warning")
def does_not_learn_by_heart(evaluation: dict[str, float]) -> bool:
    """On data that it knows a model should not be much better than on data that it does not know."""
    return evaluation["train"] - evaluation["test"] < 0.05


@asset(group="release")
def released(context: AssetContext, model: Model, evaluation: dict[str, float]) -> dict[str, Any]:
    """The model that is in use; a person has seen how good it is."""
    if context.approval is None:
        raise AwaitApproval(
            f"Release a model that is right for {evaluation['test']:.1%} of customers?",
            data={**evaluation, "weights": dict(zip(("", *training.FEATURES), model["weights"], strict=True))},
            timeout=timedelta(days=2),
            on_timeout="reject",
        )
    return {"model": model, "by": context.approval.decided_by}


@asset(group="release")
def at_risk(released: dict[str, Any], customers: Split) -> list[int]:
    """The customers who are most likely to leave."""
    likely = training.predict(released["model"], customers["features"])
    return [int(number) for number in likely.argsort()[::-1][:10]]


ASSETS: list[Asset[..., Any]] = [customers, split, model, evaluation, released, at_risk]
CHECKS = [better_than_guessing, does_not_learn_by_heart]


def build(**options: Any) -> FlowStone:
    """Assemble the app: `flowstone dev --app churn_model.pipeline:build`."""
    return FlowStone(ASSETS, checks=CHECKS, **options)
