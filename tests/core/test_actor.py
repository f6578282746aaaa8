"""On whose behalf something happens: said once, for the calls inside."""

from __future__ import annotations

import asyncio

import pytest

from flowstone.core.actor import Actor, acting, current_actor


def test_the_innermost_actor_counts_and_the_outer_one_returns() -> None:
    with acting(Actor("ann", "web")):
        with acting(Actor("night", "automation")):
            assert current_actor() == Actor("night", "automation")
        assert current_actor() == Actor("ann", "web")
    assert current_actor() is None


def test_an_error_does_not_leave_the_actor_behind() -> None:
    with pytest.raises(ValueError, match="x"), acting(Actor("ann", "web")):
        raise ValueError("x")
    assert current_actor() is None


def test_requests_beside_each_other_do_not_see_each_others_actor() -> None:
    async def request(name: str) -> str:
        with acting(Actor(name, "web")):
            await asyncio.sleep(0)
            return str(current_actor())

    async def both() -> list[str]:
        return await asyncio.gather(request("ann"), request("bob"))

    assert asyncio.run(both()) == ["ann (web)", "bob (web)"]
