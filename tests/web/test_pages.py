"""What every page has: escaped names, headers, an ETag, one answer for many, and errors that say what next."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from starlette.testclient import TestClient

from flowstone.web.application import Dashboard, below
from flowstone.web.registry import pages


class Links(HTMLParser):
    """The addresses of a page, and what it may not have."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [str(given[name]) for name in ("href", "src", "action") if given.get(name)]
        self.inline += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]


def read(text: str) -> Links:
    found = Links()
    found.feed(text)
    return found


def test_pages_without_fields_are_shown(admin: TestClient) -> None:
    for path, page in pages().items():
        answer = admin.get(path)
        assert answer.status_code in (200, 400), path
        if answer.status_code == 200:
            found = read(answer.text)
            assert not found.inline
            assert all(link.startswith(("/", "#")) for link in found.links), "nothing is loaded from elsewhere"
            assert page.title in answer.text
            assert admin.get(f"/api/v1{page.api}").headers["content-type"] == "application/json"


def test_every_answer_has_the_headers_of_security(dashboard: Dashboard, admin: TestClient) -> None:
    for path in [*dashboard.routes, "/no-such-page"]:
        if path == "/live":
            continue  # goes on; it passes the same way, and its head is tested with it
        headers = admin.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "referrer-policy" in headers


def test_an_unchanged_page_is_not_sent_again(viewer: TestClient) -> None:
    first = viewer.get("/about")
    again = viewer.get("/about", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_files_are_kept_by_browsers_and_change_their_address(viewer: TestClient) -> None:
    style = next(link for link in read(viewer.get("/about").text).links if link.endswith("flowstone.css"))
    answer = viewer.get(style)
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"] == "text/css; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "status"), [("/no-such-page", 404), ("/about?x=1", 400), ("/about?" + "x=1&" * 9000, 413)]
)
def test_errors_say_what_next(viewer: TestClient, path: str, status: int) -> None:
    answer = viewer.get(path)
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    as_json = viewer.get("/api/v1" + path)
    assert as_json.status_code == status
    assert as_json.headers["content-type"] == "application/problem+json"
    assert as_json.json()["status"] == status


@pytest.mark.parametrize(
    "place",
    [
        "//evil.test",
        "/\\evil.test",
        "\\\\evil.test",
        "https://evil.test",
        "javascript:alert(1)",
        "",
        "/a\r\nx: y",
        "/asset?name=\u05d0\U0001f600",
    ],
)
def test_the_next_place_is_ours(place: str) -> None:
    found = below([place])
    assert found.startswith("/")
    assert not found.startswith(("//", "/\\"))
    assert ":" not in found
    assert found.isascii(), "it becomes a header"


def test_preferences_are_kept_by_the_browser(viewer: TestClient) -> None:
    form = {"theme": "dark", "zone": "Asia/Kathmandu", "back": "/about"}
    answer = viewer.post("/preferences", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/about")
    page = viewer.get("/about").text
    assert 'data-theme="dark"' in page
    assert "Asia/Kathmandu (+05:45)" in page
    assert 'data-shortcuts="off"' in page
    assert viewer.post("/preferences", data={"theme": "pink"}).status_code == 400
