from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

import pytest

from flowstone.core.asset import asset
from flowstone.core.context import AssetContext, CancellationToken, Resources
from flowstone.core.partitions import NO_PARTITION
from flowstone.core.step import Attempt
from flowstone.errors import ResourceError, StepCancelledError


def test_a_token_remembers_the_first_reason() -> None:
    token = CancellationToken()
    token.raise_if_cancelled()
    assert not token.wait(0)
    token.cancel("first")
    token.cancel("second")
    assert (token.is_cancelled, token.reason, token.wait(0)) == (True, "first", True)
    with pytest.raises(StepCancelledError, match="orders"):
        token.raise_if_cancelled("orders")


def test_waiting_wakes_up() -> None:
    token = CancellationToken()
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda: answers.append(token.wait(30))) for _ in range(4)]
    for thread in threads:
        thread.start()
    token.cancel()
    for thread in threads:
        thread.join(30)
    assert answers == [True] * 4


def test_a_cancel_while_the_event_is_made_is_not_lost() -> None:
    for _ in range(300):
        token = CancellationToken()
        start = threading.Barrier(2)
        answers: list[bool] = []

        def wait(token=token, start=start, answers=answers) -> None:
            start.wait()
            answers.append(token.wait(5))

        thread = threading.Thread(target=wait)
        thread.start()
        start.wait()
        token.cancel()
        thread.join(10)
        assert answers == [True]


def test_the_context_of_an_attempt_has_all_that_one_has() -> None:
    """It is made without `__init__`: what is added there has to be added here."""
    step = Attempt(
        step_id=1,
        run_id="r",
        asset="one",
        partition_key=NO_PARTITION,
        attempt=1,
        max_attempts=1,
        token=1,
        started_at=datetime.now(UTC),
    )
    made = AssetContext.of_attempt(asset(name="one")(lambda: 1), step, CancellationToken(), log=None)
    assert [name for name in AssetContext.__slots__ if not hasattr(made, name)] == []


def test_resources_by_attribute_and_key() -> None:
    resources = Resources({"db": 1, "api": 2}, "orders")
    assert (resources.db, resources["api"], len(resources), sorted(resources)) == (1, 2, 2, ["api", "db"])
    with pytest.raises(ResourceError, match=r"'orders' did not ask for a resource 'dbs'. Did you mean 'db'\?"):
        resources["dbs"]
    with pytest.raises(ResourceError):
        resources.other  # noqa: B018
    assert not hasattr(resources, "__wrapped__")
    assert "db" in resources
    assert "nope" not in resources
    assert resources.get("nope") is None


def test_the_logger_is_named_after_the_asset() -> None:
    @asset(name="the orders")
    def orders(): ...

    context = AssetContext(
        asset=orders,
        partition=None,
        key="",
        run_id="r",
        step_id="1",
        attempt=2,
        token=3,
        started_at=datetime.now(UTC),
        cancellation=CancellationToken(),
        resources={},
    )
    assert context.logger is logging.getLogger("flowstone.asset.the orders")
    assert repr(context) == "<context of the orders, attempt 2, run r>"
