"""Who is who: passwords, sessions, tokens, the printed link, proxies; each wrong way in."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from flowstone import FlowStone
from flowstone.errors import ConfigurationError
from flowstone.web.access import (
    SESSION_SECONDS,
    LoginLink,
    Sessions,
    UsersFile,
    hash_password,
    verify_password,
)
from flowstone.web.application import create_app
from flowstone.web.registry import Person, Role

pytestmark = pytest.mark.usefixtures("one_loop")

BROWSER = {"sec-fetch-site": "same-origin"}
RIGHT = "correct horse"


@pytest.fixture(scope="module")
def kept() -> str:
    return hash_password(RIGHT)


@pytest.fixture
def users(tmp_path: Path, kept: str) -> UsersFile:
    file = UsersFile(tmp_path / "users.json")
    file.set_user("ann", Role.OPERATOR, kept)
    return file


def browser(app: object, **headers: str) -> TestClient:
    return TestClient(
        app,  # type: ignore[arg-type]
        base_url="http://localhost",
        headers={**BROWSER, **headers},
        follow_redirects=False,
    )


def log_in(client: TestClient, name: str = "ann", password: str = RIGHT, following: str = "/about") -> object:
    return client.post("/login", data={"name": name, "password": password, "next": following})


def test_a_person_logs_in_and_out(flow: FlowStone, users: UsersFile) -> None:
    client = browser(create_app(flow, users_file=users.path))
    refused = client.get("/about", headers={"accept": "text/html"})
    assert (refused.status_code, refused.headers["location"]) == (303, "/login?next=%2Fabout")
    assert client.get("/login?next=/about").status_code == 200
    done = log_in(client)
    assert (done.status_code, done.headers["location"]) == (303, "/about")  # type: ignore[attr-defined]
    cookie = done.headers["set-cookie"].lower()  # type: ignore[attr-defined]
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "max-age=43200" in cookie
    page = client.get("/about")
    assert page.status_code == 200
    assert "operator" in page.text
    assert client.post("/logout", data={}).status_code == 303
    assert client.get("/about").status_code == 303


def test_the_session_is_new_at_each_login_and_ends_with_it(flow: FlowStone, users: UsersFile) -> None:
    app = create_app(flow, users_file=users.path)
    chosen, keys = "chosen-by-an-attacker", []
    for _ in range(2):
        done = log_in(browser(app, cookie=f"flowstone={(keys or [chosen])[-1]}"))
        keys.append(done.headers["set-cookie"].partition(";")[0].partition("=")[2])  # type: ignore[attr-defined]
    assert len({*keys, chosen}) == 3
    assert browser(app, cookie=f"flowstone={keys[0]}").get("/about").status_code == 303, "the one before ended"
    assert browser(app, cookie=f"flowstone={keys[1]}").get("/about").status_code == 200


@pytest.mark.parametrize(
    ("name", "password"), [("ann", "wrong"), ("bob", RIGHT), ("", ""), ("ann", ""), ("ann", "x" * 5000)]
)
def test_nobody_learns_whether_the_name_or_the_password_was_wrong(
    flow: FlowStone, users: UsersFile, name: str, password: str
) -> None:
    answer = log_in(browser(create_app(flow, users_file=users.path)), name, password)
    assert answer.status_code == 401  # type: ignore[attr-defined]
    assert "Name or password is wrong." in answer.text  # type: ignore[attr-defined]
    assert "set-cookie" not in answer.headers  # type: ignore[attr-defined]


def test_a_name_that_is_not_there_costs_as_much(users: UsersFile, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(
        "flowstone.web.access.verify_password", lambda password, kept: bool(calls.append(kept)) or False
    )
    users.check("ann", "wrong")
    users.check("nobody", "wrong")
    assert [one.startswith("scrypt$") for one in calls] == [True, True]


def test_failures_are_limited(flow: FlowStone, users: UsersFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowstone.web.access.verify_password", lambda password, kept: password == RIGHT)
    client = browser(create_app(flow, users_file=users.path))
    for _ in range(10):
        assert log_in(client, password="wrong").status_code == 401  # type: ignore[attr-defined]
    answer = log_in(client)
    assert answer.status_code == 429, "also with the right password"  # type: ignore[attr-defined]
    assert int(answer.headers["retry-after"]) <= 60  # type: ignore[attr-defined]


def test_the_file_counts_at_once(flow: FlowStone, users: UsersFile, kept: str) -> None:
    client = browser(create_app(flow, users_file=users.path))
    log_in(client)
    users.set_user("ann", Role.VIEWER, kept)
    assert "viewer" in client.get("/about").text
    users.remove("ann")
    assert client.get("/about").status_code in (303, 401)


def test_sessions_end_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    sessions = Sessions(clock=lambda: now[0])
    key = sessions.open(Person("ann"))
    now[0] = SESSION_SECONDS - 1
    assert sessions.person(key) is not None
    now[0] = SESSION_SECONDS + 1
    assert sessions.person(key) is None
    monkeypatch.setattr("flowstone.web.access.MAX_SESSIONS", 3)
    keys = [sessions.open(Person(str(number))) for number in range(5)]
    assert [sessions.person(one) is not None for one in keys] == [False, False, True, True, True]


def test_sessions_outlast_a_restart_when_they_have_a_file(tmp_path: Path) -> None:
    file = tmp_path / "sessions.json"
    first = Sessions(file=file)
    key, other = first.open(Person("ann", Role.ADMIN)), first.open(Person("bob"))
    first.close(other)
    assert key not in file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = Sessions(file=file)
    assert again.person(key) == Person("ann", Role.ADMIN)
    assert again.person(other) is None
    file.chmod(0o666)
    assert Sessions(file=file).person(key) is None, "another user could have written it"
    file.chmod(0o600)
    for text in ("", "[]", '{"x": ["ann", "king", 1]}', '{"x": 1}'):
        file.write_text(text, encoding="utf-8")
        assert Sessions(file=file).person(key) is None


def test_nothing_secret_is_kept(users: UsersFile) -> None:
    secret = users.new_token("ci", Role.VIEWER)
    text = users.path.read_text(encoding="utf-8")
    assert secret not in text
    assert RIGHT not in text
    assert stat.S_IMODE(users.path.stat().st_mode) == 0o600
    key = (sessions := Sessions()).open(Person("ann"))
    assert key not in repr(vars(sessions))
    assert len(key) >= 43, "256 bits"


def test_tokens_speak_for_their_role_until_their_time_is_over(flow: FlowStone, users: UsersFile) -> None:
    app = create_app(flow, users_file=users.path)
    secret = users.new_token("ci", Role.APPROVER, expires_at=None)

    def ask(secret: str) -> object:
        return TestClient(app, base_url="http://localhost").get(
            "/api/v1/about", headers={"authorization": f"Bearer {secret}"}
        )

    assert ask(secret).json()["role"] == "approver"  # type: ignore[attr-defined]
    for wrong in ("", "fst_wrong", secret[:-1], secret + "x", "Ü"):
        if wrong.isascii():
            assert ask(wrong).status_code == 401  # type: ignore[attr-defined]
    late = users.new_token("late", Role.ADMIN, expires_at=1.0)
    assert ask(late).status_code == 401  # type: ignore[attr-defined]
    newer = users.new_token("ci", Role.VIEWER)
    assert ask(secret).status_code == 401, "the one before ended"  # type: ignore[attr-defined]
    assert ask(newer).json()["role"] == "viewer"  # type: ignore[attr-defined]


def test_a_token_may_post_without_an_origin_and_not_from_a_foreign_one(flow: FlowStone, users: UsersFile) -> None:
    app = create_app(flow, users_file=users.path)
    secret = users.new_token("ci", Role.VIEWER)
    client = TestClient(app, base_url="http://localhost", headers={"authorization": f"Bearer {secret}"})
    assert client.post("/preferences", data={"theme": "dark"}, follow_redirects=False).status_code == 303
    assert client.post("/preferences", data={}, headers={"origin": "https://evil.test"}).status_code == 403


def test_the_printed_link_opens_once(flow: FlowStone) -> None:
    link = LoginLink(Person("ann", Role.ADMIN))
    app = create_app(flow, login_link=link)
    secret = link.secret
    client = browser(app)
    assert client.get("/about").status_code == 401
    assert client.get("/login/link?open=guessed").status_code == 401
    assert client.head(f"/login/link?open={secret}").status_code == 404, "a preview does not use it up"
    assert client.get(f"/login/link?open={secret}").status_code == 303
    assert client.get("/about").status_code == 200
    assert client.get(f"/login/link?open={secret}").status_code == 303, "who has a session is let in"
    other = browser(app)
    assert other.get(f"/login/link?open={secret}").status_code == 401


@pytest.mark.parametrize(
    ("address", "status"), [("10.0.0.5", 200), ("10.0.1.5", 401), ("203.0.113.9", 401), ("testclient", 401)]
)
def test_a_header_names_the_person_from_trusted_addresses_only(
    flow: FlowStone, users: UsersFile, address: str, status: int
) -> None:
    users.set_user("bob", Role.APPROVER, "")
    app = create_app(
        flow,
        users_file=users.path,
        trusted_proxies=["10.0.0.0/24"],
        user_header="X-User",
        allowed_hosts=["f.test"],
    )
    client = TestClient(app, base_url="http://f.test", client=(address, 1), headers={"x-user": "bob"})
    answer = client.get("/api/v1/about")
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["role"] == "approver"
        assert client.get("/api/v1/about", headers={"x-user": "eve"}).status_code == 401


def test_forwarded_headers_of_others_count_for_nothing(flow: FlowStone, users: UsersFile) -> None:
    app = create_app(flow, users_file=users.path, trusted_proxies=["10.0.0.5"], allowed_hosts=["f.test"])
    forged = {"x-forwarded-host": "f.test", "x-forwarded-proto": "https", "x-forwarded-prefix": "/ops"}
    stranger = TestClient(app, base_url="http://evil.test", client=("10.9.9.9", 1), headers=forged)
    assert stranger.get("/login").status_code == 421
    proxy = TestClient(
        app, base_url="http://inner.test", client=("10.0.0.5", 1), headers=forged, follow_redirects=False
    )
    assert 'action="/ops/login"' in proxy.get("/login").text
    done = proxy.post(
        "/login",
        data={"name": "ann", "password": RIGHT, "next": "/about"},
        headers={"sec-fetch-site": "same-origin"},
    )
    assert done.headers["location"] == "/ops/about"
    assert done.headers["set-cookie"].startswith("__Secure-flowstone=")
    assert "Path=/ops/" in done.headers["set-cookie"]
    assert "Secure" in done.headers["set-cookie"]


def test_https_at_the_root_has_a_host_cookie(flow: FlowStone, users: UsersFile) -> None:
    app = create_app(flow, users_file=users.path)
    client = TestClient(app, base_url="https://localhost", headers=BROWSER, follow_redirects=False)
    assert log_in(client).headers["set-cookie"].startswith("__Host-flowstone=")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "Who may see"),
        ({"users_file": "u.json", "user_header": "X-User"}, "trusted_proxies"),
        ({"users_file": "u.json", "allowed_hosts": ["*"]}, "no name of a host"),
        ({"users_file": "u.json", "allowed_hosts": "f.test"}, "give a list"),
        ({"users_file": "u.json", "trusted_proxies": ["proxy"]}, "no address"),
    ],
)
def test_settings_that_cannot_work_are_refused(flow: FlowStone, options: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        create_app(flow, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", ["ann", ("ann", "admin"), True, Person("", Role.ADMIN), Person("a", 4)])  # type: ignore[arg-type]
def test_identify_answers_with_a_person(flow: FlowStone, answer: object) -> None:
    app = create_app(flow, identify=lambda request: answer)  # type: ignore[arg-type, return-value]
    assert browser(app).get("/about").status_code == 422


def test_identify_may_be_awaited(flow: FlowStone) -> None:
    async def identify(request: Request) -> Person | None:
        return Person("ann", Role.VIEWER)

    assert browser(create_app(flow, identify=identify)).get("/about").status_code == 200


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"users": {"ann": {"role": "king"}}, "tokens": {}}', '{"users": 1}']
)
def test_a_file_that_cannot_be_read_lets_nobody_in(flow: FlowStone, tmp_path: Path, text: str) -> None:
    path = tmp_path / "users.json"
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"users\.json"):
        _ = UsersFile(path).users


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    path.write_text(json.dumps({"users": {}, "tokens": {}}), encoding="utf-8")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        _ = UsersFile(path).users


def test_passwords_are_salted() -> None:
    one, other = hash_password("same"), hash_password("same")
    assert one != other
    assert verify_password("same", other)
    assert not verify_password("same", "scrypt$zz$zz")
    assert not verify_password("same", "")


def test_a_login_is_written_down(
    flow: FlowStone, users: UsersFile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowstone.web.access.verify_password", lambda password, kept: password == RIGHT)
    client = browser(create_app(flow, users_file=users.path))
    with caplog.at_level("INFO", logger="flowstone.web"):
        log_in(client, password="wrong")
        log_in(client)
    assert ["failed" in one.message for one in caplog.records] == [True, False]
    assert RIGHT not in caplog.text
    lines = flow.parts.store.audit.lines()
    assert [(one.action, one.subject, one.actor) for one in lines] == [
        ("login.succeeded", "person:ann", "ann"),
        ("login.failed", "person:ann", "ann"),
    ]
    assert RIGHT not in str(lines)
