"""What users of other tools reported about their pages, each tried on ours."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient
from tests.web.conftest import by_header
from tests.web.test_pages import read

from flowstone import FlowStone
from flowstone.web.access import UsersFile, hash_password
from flowstone.web.application import create_app
from flowstone.web.registry import Role, pages
from flowstone.web.server import _prepared

BROWSER = {"sec-fetch-site": "same-origin", "x-role": "admin"}


@pytest.mark.parametrize("path", ["/about", "/ops/flow/about"])
def test_below_a_path_of_a_proxy_that_strips_it_or_does_not(flow: FlowStone, path: str) -> None:
    """dagster#2073, #17641, #28086, prefect#11472: a white page, or redirects without an end.

    Notebook servers proxy a port below a path of their own and send no header about it.
    """
    app = create_app(flow, identify=by_header, prefix="/ops/flow")
    client = TestClient(app, base_url="http://localhost", headers=BROWSER, follow_redirects=False)
    page = client.get(path)
    assert page.status_code == 200
    links = read(page.text).links
    assert all(link.startswith(("/ops/flow/", "#")) for link in links)
    for link in links:
        if "/static/" in link:  # dagster#21616: the icon; legacy-ui#861: what is loaded after the page
            assert client.get(link).status_code == 200
            assert client.get(link.removeprefix("/ops/flow")).status_code == 200


@pytest.mark.parametrize("prefix", ["ops", "//evil.test", "/a?b", "/a#b", "https://evil.test", "/a\nb"])
def test_a_prefix_that_is_none_is_refused(flow: FlowStone, prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix="):
        create_app(flow, identify=by_header, prefix=prefix)


def test_a_link_from_another_site_opens_the_page(flow: FlowStone) -> None:
    """airflow#24051: who came by a link from a chat got "CSRF session token is missing", from then on always."""
    client = TestClient(create_app(flow, identify=by_header), base_url="http://localhost", headers=BROWSER)
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/about", headers=followed).status_code == 200
    assert client.post("/preferences", data={"theme": "dark"}, headers=followed).status_code == 403
    assert client.post("/preferences", data={"theme": "dark"}, follow_redirects=False).status_code == 303


def test_the_way_back_after_a_login_is_a_path(flow: FlowStone, tmp_path: Path) -> None:
    """airflow#46533, changedetection.io#3875: after the login one was at localhost, or without the prefix."""
    users = UsersFile(tmp_path / "users.json")
    users.set_user("ann", Role.VIEWER, hash_password("long enough"))
    app = create_app(flow, users_file=users.path, prefix="/cdio", trusted_proxies=["10.0.0.5"])
    client = TestClient(
        app,
        base_url="http://127.0.0.1:5000",
        client=("10.0.0.5", 1),
        headers={"sec-fetch-site": "same-origin"},
        follow_redirects=False,
    )
    answer = client.get("/cdio/about?x=1", headers={"x-forwarded-host": "localhost"})
    assert answer.headers["location"] == "/cdio/login?next=%2Fabout%3Fx%3D1"
    form = client.get("/cdio/login?next=/about%3Fx%3D1")
    assert 'value="/about?x=1"' in form.text
    done = client.post("/cdio/login", data={"name": "ann", "password": "long enough", "next": "/about?x=1"})
    assert done.headers["location"] == "/cdio/about?x=1"
    assert "Path=/cdio/" in done.headers["set-cookie"], "miniflux-legacy#720: the cookie was for another path"


def test_the_login_asks_for_nothing_that_needs_one(flow: FlowStone, tmp_path: Path) -> None:
    """prefect#18518: before the login the page asked the API for something and showed that it failed."""
    app = create_app(flow, users_file=tmp_path / "users.json")
    client = TestClient(app, base_url="http://localhost")
    text = client.get("/login").text
    links = read(text).links
    assert all(client.get(link).status_code == 200 for link in links if link.startswith("/static/"))
    assert 'data-stream=""' in text, "no stream is opened"


def test_streams_end_with_their_browser_and_with_the_server(flow: FlowStone) -> None:
    """uvicorn#388: streams of browsers that had left went on; sse-starlette#1: Ctrl-C hung while one was open."""
    server, listening, address = _prepared(flow, host="127.0.0.1", port=0)
    ready = threading.Event()
    server.on_ready = ready.set
    server.config.timeout_graceful_shutdown = 20
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    base = address.partition("/login")[0]
    with listening, httpx.Client(base_url=base) as client:
        thread.start()
        assert ready.wait(10)
        assert client.get(address).status_code == 303
        live = server.app.live
        with client.stream("GET", "/live") as stream:
            lines = stream.iter_lines()  # an iterator that is dropped closes the connection
            assert (stream.status_code, next(lines), live.watchers) == (200, "retry: 2000", 1)
        deadline = time.monotonic() + 60
        while live.watchers or live.running:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with client.stream("GET", "/live") as stream:
            lines = stream.iter_lines()
            next(lines)
            began = time.monotonic()
            server.should_exit = True
            thread.join(30)
            took = time.monotonic() - began
    assert not thread.is_alive()
    assert took < 19, "it did not wait for its grace to end"


def test_pages_of_any_method_of_reading(flow: FlowStone) -> None:
    client = TestClient(create_app(flow, identify=by_header), base_url="http://localhost", headers=BROWSER)
    for path in pages():
        assert client.head(path).content == b""
