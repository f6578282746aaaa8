"""The dashboard inside of other applications, at a prefix, behind a proxy: every link leads back in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from tests.web.conftest import by_header
from tests.web.test_pages import read

from flowstone import FlowStone
from flowstone.web.access import UsersFile
from flowstone.web.application import create_app
from flowstone.web.registry import Role

BROWSER = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    for name in ("fastapi_dashboard", "starlette_dashboard"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import fastapi_dashboard

    yield fastapi_dashboard
    fastapi_dashboard.flow.close()


def test_in_fastapi(example: ModuleType) -> None:
    client = TestClient(example.app, base_url="https://shop.example.com", headers=BROWSER)
    assert client.get("/flowstone/about").status_code == 401
    client.post("/login/ann")
    page = client.get("/flowstone/about")
    assert "operator" in page.text
    assert all(link.startswith(("/flowstone/", "#")) for link in read(page.text).links)
    assert client.get("/flowstone/api/v1/about").json()["person"] == "ann"
    assert client.get("/openapi.json").status_code == 200, "the application's own"
    evil = TestClient(example.app, base_url="https://evil.test", headers=BROWSER)
    assert evil.get("/flowstone/about", headers={"cookie": "employee=ann"}).status_code == 421


def test_in_starlette_behind_a_proxy_that_strips(example: ModuleType, tmp_path: Path) -> None:
    import starlette_dashboard

    users = UsersFile(tmp_path / "users.json")
    users.set_user("ann", Role.OPERATOR, "")
    app = starlette_dashboard.build(users.path, proxy="10.0.0.5")
    sent = {**BROWSER, "x-user": "ann", "x-forwarded-prefix": "/ops", "x-forwarded-proto": "https"}
    client = TestClient(app, base_url="http://shop.example.com", headers=sent, client=("10.0.0.5", 1))
    assert client.get("/").text == "hello"
    page = client.get("/data/about")
    assert "operator" in page.text
    assert all(link.startswith(("/ops/data/", "#")) for link in read(page.text).links)
    direct = TestClient(app, base_url="http://shop.example.com", headers=sent, client=("10.0.0.6", 1))
    assert direct.get("/data/about").status_code == 401


@pytest.mark.parametrize("prefix", ["/a", "/a/b", "/über", "/a b", "/static", "/about"])
def test_at_any_prefix(flow: FlowStone, prefix: str) -> None:
    dashboard = create_app(flow, identify=by_header)
    for outer in (Starlette(routes=[Mount(prefix, dashboard)]), FastAPI()):
        if isinstance(outer, FastAPI):
            outer.mount(prefix, dashboard)
        headers = {**BROWSER, "x-role": "admin"}
        client = TestClient(outer, base_url="http://localhost", headers=headers, follow_redirects=False)
        page = client.get(f"{prefix}/about")
        assert page.status_code == 200
        for link in read(page.text).links:
            assert link.startswith((quote(prefix) + "/", "#"))
            if "/static/" in link.removeprefix(quote(prefix)):
                assert client.get(link).status_code == 200, link
        form = {"theme": "dark", "zone": "UTC", "back": "/about"}
        done = client.post(f"{prefix}/preferences", data=form)
        assert done.status_code == 303
        again = client.get(done.headers["location"])
        assert again.status_code == 200
        assert 'data-theme="dark"' in again.text
        assert client.get("/about" if prefix != "/about" else "/about/x").status_code == 404


def test_with_a_root_path_of_the_server(flow: FlowStone) -> None:
    """`uvicorn --root-path /ops`: newer servers put it in front of the path, older ones do not."""
    dashboard = create_app(flow, identify=by_header)
    client = TestClient(dashboard, base_url="http://localhost", root_path="/ops", headers={"x-role": "viewer"})
    for path in ("/about", "/ops/about"):
        page = client.get(path)
        assert page.status_code == 200
        assert all(link.startswith(("/ops/", "#")) for link in read(page.text).links)
