"""Every route there is, also those that others add: who may, from where, by which method, with which fields."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient
from tests.web.conftest import ROLES, by_header, first_message

from flowstone import FlowStone
from flowstone.web.application import Dashboard, Route, create_app
from flowstone.web.registry import Action, Role, actions, pages

pytestmark = pytest.mark.usefixtures("one_loop")

type ClientOf = Callable[[Role | None], TestClient]

PUBLIC = {"/login", "/login/link"}


def routes(dashboard: Dashboard) -> list[Route]:
    return [route for route in dashboard.routes.values() if not route.path.startswith("/static/")]


def ask(client: TestClient, route: Route, method: str) -> int:
    """Return the status of a request without any field."""
    if route.kind == "stream":
        return asyncio.run(first_message(client.app, route.path, {"host": "localhost", **client.headers}))[0]  # type: ignore[arg-type]
    if method == "POST" and route.kind == "api":
        return client.post(route.path, json={}).status_code
    if method == "POST":
        return client.post(route.path, data={"none": ""}).status_code
    return client.request(method, route.path).status_code


def test_only_the_login_and_files_are_for_everybody(dashboard: Dashboard, flow: FlowStone, tmp_path: Path) -> None:
    assert {route.path for route in routes(dashboard) if route.role is None} == set()
    alone = create_app(flow, users_file=tmp_path / "users.json")
    assert {route.path for route in routes(alone) if route.role is None} == PUBLIC


def test_each_role_reaches_what_it_may_and_nothing_else(dashboard: Dashboard, client_of: ClientOf) -> None:
    """The matrix: role × route × method, by raw HTTP."""
    wrong = []
    for role in ROLES:
        client = client_of(role)
        for route in routes(dashboard):
            for method in sorted(route.methods):
                status = ask(client, route, method)
                assert route.role is not None
                if role is None:
                    fine = status == 401
                elif role < route.role:
                    fine = status == 403
                else:
                    # 400 and 422: the role was let in, and its request has no fields
                    fine = status not in (401, 403, 405, 500)
                if not fine:
                    wrong.append(f"{role} {method} {route.path}: {status}")
    assert wrong == []


def test_every_route_answers_its_methods_only(dashboard: Dashboard, admin: TestClient) -> None:
    wrong = [
        f"{method} {route.path}: {status}"
        for route in dashboard.routes.values()
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
        if method not in route.methods and (status := admin.request(method, route.path).status_code) != 405
    ]
    assert wrong == []


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "", "origin": "https://evil.test"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
    ],
    ids=str,
)
def test_nothing_is_changed_from_another_site(
    dashboard: Dashboard, admin: TestClient, method: str, headers: dict[str, str]
) -> None:
    """Ray CVE-2026-27482: DELETE was not checked; here no method but GET and HEAD passes."""
    wrong = [
        f"{route.path}: {status}"
        for route in routes(dashboard)
        if (status := admin.request(method, route.path, headers=headers).status_code) != 403
    ]
    assert wrong == []


def test_a_sender_that_says_no_origin_needs_a_token(dashboard: Dashboard) -> None:
    client = TestClient(dashboard, base_url="http://localhost", headers={"x-role": "admin"})
    assert {ask(client, route, "POST") for route in routes(dashboard) if "POST" in route.methods} == {403}


def test_scripts_of_other_sites_read_nothing(dashboard: Dashboard, admin: TestClient) -> None:
    for mode in ("cors", "no-cors", "websocket", "same-origin"):
        headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": mode}
        found = {admin.get(route.path, headers=headers).status_code for route in routes(dashboard)}
        assert found == {403}


@pytest.mark.parametrize(
    "host",
    ["evil.test", "evil.test:4300", "localhost.evil.test", "127.0.0.1.evil.test", "", "localhost@evil.test"],
)
def test_it_answers_for_its_own_names_only(dashboard: Dashboard, admin: TestClient, host: str) -> None:
    """DNS rebinding, MLflow CVE-2025-14279: also for files, and before who it is is asked."""
    found = {admin.get(path, headers={"host": host}).status_code for path in dashboard.routes}
    assert found == {421}


def test_unknown_fields_are_refused(dashboard: Dashboard, admin: TestClient) -> None:
    wrong = []
    for route in routes(dashboard):
        if "GET" in route.methods and admin.get(route.path, params={"no_such_field": "1"}).status_code != 400:
            wrong.append(f"GET {route.path}")
        if "POST" in route.methods and route.path != "/logout":
            body = {"json": {"no_such_field": 1}} if route.kind == "api" else {"data": {"no_such_field": "1"}}
            if admin.post(route.path, **body).status_code != 400:  # type: ignore[arg-type]
                wrong.append(f"POST {route.path}")
    assert wrong == []


def test_bodies_are_of_one_form_and_bounded(dashboard: Dashboard, admin: TestClient) -> None:
    for route in routes(dashboard):
        if "POST" not in route.methods or route.path == "/logout":
            continue
        kind = "application/json" if route.kind == "api" else "application/x-www-form-urlencoded"
        big = admin.post(route.path, content=b"a=" + b"1" * 70_000, headers={"content-type": kind})
        assert big.status_code == 413, route.path
        for other in ("multipart/form-data; boundary=x", "text/plain", "application/xml", ""):
            answer = admin.post(route.path, content=b"{}", headers={"content-type": other})
            assert answer.status_code == 415, (route.path, other)


def test_a_route_that_names_no_role_is_for_administrators() -> None:
    assert Route(path="/x", methods=frozenset(), handler=None).role is Role.ADMIN  # type: ignore[arg-type]


def test_read_only_has_no_actions(flow: FlowStone) -> None:
    app = create_app(flow, identify=by_header, read_only=True)
    assert not [route.path for route in app.routes.values() if isinstance(route.subject, Action)]
    client = TestClient(
        app, base_url="http://localhost", headers={"x-role": "admin", "sec-fetch-site": "same-origin"}
    )
    found = {client.post(path).status_code for path in actions()} | {
        client.post(f"/api/v1{path}", json={}).status_code for path in actions()
    }
    assert found <= {403}


def test_the_path_of_a_route_decides_nothing(admin: TestClient, viewer: TestClient) -> None:
    """Prefect CVE-2026-3514, Starlette CVE-2026-48710: prefixes, suffixes and forged hosts open nothing."""
    closed = (
        "/about/",
        "/about/health",
        "/health",
        "/static/%2e%2e/about",
        "/static/x.css",
        "/API/v1/about",
    )
    for path in closed:
        assert viewer.get(path).status_code == 404, path
    assert admin.get("/about", headers={"host": "localhost/static/?"}).status_code == 421


def status_of(application: Dashboard, path: str, headers: httpx.Headers) -> int:
    """Send a path as it is, which a client would first bring into order."""
    sent: list[Any] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), *((k, v) for k, v in headers.raw if k.lower() != b"host")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    asyncio.run(application(scope, receive, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "path", ["//about", "/about//", "/./about", "//localhost/about", "/x/../about", "about", ""]
)
def test_a_path_that_no_client_would_send_opens_nothing(
    dashboard: Dashboard, admin: TestClient, path: str
) -> None:
    assert status_of(dashboard, "/about", admin.headers) == 200
    assert status_of(dashboard, path, admin.headers) in ((200, 404) if path == "" else (404,))
    assert status_of(dashboard, path, httpx.Headers()) in (303, 401, 404)


def test_every_page_has_a_title_and_a_twin() -> None:
    assert pages()
    twins = [page.api for page in pages().values()]
    assert len(set(twins)) == len(twins)
    assert all(page.title for page in pages().values())
