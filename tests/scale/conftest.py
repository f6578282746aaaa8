"""Databases of the scale profiles: written once for all workers of pytest, cloned for each module."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.scale.app import M, S
from tests.scale.template import template

from flowstone.testing.postgres import TemporaryServer


@pytest.fixture(scope="module")
def small_scale(start_server: Callable[[str], TemporaryServer]) -> Iterator[str]:
    """DSN of a database with the history of scale S, of this module's own."""
    server = start_server("embedded")
    with server.clone(template(server, S)) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def large_scale(start_server: Callable[[str], TemporaryServer]) -> Iterator[str]:
    """DSN of a database with the history of scale M, of this module's own; slow to make, for slow tests."""
    server = start_server("embedded")
    with server.clone(template(server, M)) as dsn:
        yield dsn
