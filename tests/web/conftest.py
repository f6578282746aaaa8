"""A dashboard on an app in memory, and clients of it with each role."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import anyio.from_thread
import pytest
from starlette.requests import Request

from flowstone import FlowStone, asset
from flowstone.web.application import Dashboard, create_app
from flowstone.web.registry import Person, Role

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # which client of HTTP it is built on is no concern of ours
    from starlette.testclient import TestClient

ROLES = [None, *Role]
"""Nobody, and each role."""


@asset
def numbers() -> list[int]:
    return [1, 2, 3]


@asset
def doubled(numbers: list[int]) -> list[int]:
    return [2 * number for number in numbers]


def by_header(request: Request) -> Person | None:
    """Know a person by the header `x-role`, as an application around the dashboard would by its own means."""
    role = request.headers.get("x-role")
    return Person(f"an {role}", Role.of(role)) if role else None


async def first_message(app: Dashboard, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Return the status of an answer that goes on, and the first of it; then leave, as a closed tab does."""
    status, body, left = asyncio.Event(), bytearray(), asyncio.Event()
    found: list[int] = []

    async def receive() -> dict[str, object]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            found.append(message["status"])
        body.extend(message.get("body", b""))
        if found and (b"data:" in body or found[0] != 200):
            status.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "method": "GET",
        "scheme": "http",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
    }
    task = asyncio.create_task(app(scope, receive, send))
    await asyncio.wait_for(status.wait(), 10.0)
    left.set()
    await asyncio.wait_for(task, 10.0)
    return found[0], bytes(body)


@pytest.fixture(scope="module")
def one_loop() -> Iterator[None]:
    """Let all requests of a module share an event loop: a thread and a loop for each take most of its time.

    Answers are shared for a moment within a loop, so this is not for tests that change something and read again.
    """
    with anyio.from_thread.start_blocking_portal() as portal, pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestClient, "portal", portal)
        yield


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    with FlowStone.for_testing([numbers, doubled]) as opened:
        yield opened


@pytest.fixture
def dashboard(flow: FlowStone) -> Dashboard:
    return create_app(flow, identify=by_header)


@pytest.fixture
def client_of(dashboard: Dashboard) -> Callable[[Role | None], TestClient]:
    """Return a client with a role; None for nobody."""

    def client(role: Role | None) -> TestClient:
        headers = {"sec-fetch-site": "same-origin", **({"x-role": role.label} if role else {})}
        return TestClient(dashboard, base_url="http://localhost", headers=headers, follow_redirects=False)

    return client


@pytest.fixture
def viewer(client_of: Callable[[Role | None], TestClient]) -> TestClient:
    return client_of(Role.VIEWER)


@pytest.fixture
def admin(client_of: Callable[[Role | None], TestClient]) -> TestClient:
    return client_of(Role.ADMIN)
