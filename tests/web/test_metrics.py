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


def test_fields_are_refused(client_of: Callable[[Role | None], Any]) -> None:
    assert client_of(Role.VIEWER).get("/metrics?from=tables").status_code == 400
