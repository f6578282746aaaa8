"""What Prometheus reads of the dashboard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.web.conftest import ROLES

from flowstone.web.registry import Role


@pytest.mark.parametrize("role", ROLES, ids=str)
def test_whoever_may_read_may_scrape(role: Role | None, client_of: Callable[[Role | None], Any]) -> None:
    answer = client_of(role).get("/metrics")
    if role is None:
        assert answer.status_code == 401
        return
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'flowstone_steps{queue="assets",state="available"} 0\n' in answer.text
    assert "flowstone_attempts_total" not in answer.text


def test_the_part_that_it_has_may_be_asked_for_as_a_worker_is(client_of: Callable[[Role | None], Any]) -> None:
    viewer = client_of(Role.VIEWER)
    assert viewer.get("/metrics?from=tables").status_code == 200
    for fields in ("from=process", "from=", "from=tables&x=1"):
        assert viewer.get(f"/metrics?{fields}").status_code == 400
