"""Senders against real servers: mail, HTTP, and apprise on top of that."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.notifications.certificates import Authority
from tests.notifications.servers import HookServer, MailServer, hook_server, mail_server

from flowstone.core.clean import mask_secrets
from flowstone.core.notification import Message, Notice, NotifyEvent
from flowstone.errors import DefinitionError, NotSentError
from flowstone.notifiers import apprise, email, is_signed, webhook
from flowstone.notifiers.email import EmailSender
from flowstone.notifiers.webhook import WebhookSender, signature

pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH:UserWarning")  # on this machine alone

AT = datetime(2024, 1, 5, 6, 7, tzinfo=UTC)


def message(subject: str = "orders failed", text: str = "- orders failed: no rows\n", **more: Any) -> Message:
    notice = Notice(NotifyEvent.FAILED, "orders", AT, "s:eu", "no rows", 3, "r1")
    settings: dict[str, Any] = {"id": "7", "rule": "ops", "counts": {"failed": 1}, "created_at": AT}
    return Message(subject=subject, text=text, notices=(notice,), **settings | more)


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def hooks_server() -> Iterator[HookServer]:
    with hook_server() as server:
        yield server


@pytest.fixture
def hooks(hooks_server: HookServer) -> HookServer:
    hooks_server.received.clear()
    hooks_server.answers.clear()
    hooks_server.before = lambda: None
    return hooks_server


def to_ann(server: MailServer, *more: str, **options: Any) -> EmailSender:
    settings: dict[str, Any] = {"sender": "Flow <flow@example.com>", "host": "127.0.0.1", "security": "none"}
    return email(["Ann Ä <ann@example.com>", *more], port=server.port, **settings | options)


# --- email ------------------------------------------------------------------------------------------------


def test_a_mail_arrives(mail: MailServer) -> None:
    to_ann(mail, "bob@example.com").send(message("größer als 5", text="- Größe: 日本\n"))
    (envelope,), (received,) = mail.received, mail.mails
    assert envelope.rcpt_tos == ["ann@example.com", "bob@example.com"]
    assert received["Subject"] == "größer als 5"
    assert received.get_content().splitlines() == ["- Größe: 日本"]
    assert received["From"].addresses[0].addr_spec == "flow@example.com"
    assert received["Auto-Submitted"] == "auto-generated"
    assert received["Date"].datetime == AT


def test_the_same_message_has_the_same_id(mail: MailServer) -> None:
    """A mailbox knows that it was sent once more."""
    sender = to_ann(mail)
    for one in (message(), message(), message(id="8")):
        sender.send(one)
    first, second, other = (one["Message-ID"] for one in mail.mails)
    assert first == second != other


@pytest.mark.parametrize(
    "hostile",
    [
        "no rows\nBcc: all@example.com\n\nhello",  # TurboGears/backlash#8
        "no rows\r\n.\r\nMAIL FROM:<x@example.com>",
        "a =?UTF-8?Q?=0A?=Bcc: all@example.com",  # python/cpython#121650
        "a\u2028Bcc: all@example.com",
        "a\x0bBcc: x\x0c\x85Bcc: y",
        "x" * 2000,  # thp/urlwatch#702: no line may be longer than 998
        "ж" * 2000,
        "\ud800 half",
    ],
)
def test_hostile_subjects_are_one_line(mail: MailServer, hostile: str) -> None:
    to_ann(mail).send(message(hostile, text=hostile.encode("utf-8", "replace").decode()))
    (envelope,), (received,) = mail.received, mail.mails
    assert envelope.rcpt_tos == ["ann@example.com"]
    assert {"Bcc", "MAIL FROM"}.isdisjoint(received.keys())
    assert max(map(len, (envelope.original_content or b"").splitlines())) < 998
    assert "\n" not in received["Subject"]


@given(st.text(max_size=300))
def test_any_text_can_be_a_subject(text: str) -> None:
    sender = email("ann@example.com", sender="flow@example.com")
    headers = sender.mail(message(text)).as_bytes().partition(b"\n\n")[0].decode("ascii")
    names = [line.partition(":")[0] for line in headers.splitlines() if not line.startswith((" ", "\t"))]
    assert sorted(names) == sorted(
        [
            *("Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted"),
            *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
        ]
    )


def test_a_password_is_checked_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    with mail_server(password="tr0ub4dor-and-3") as server:
        to_ann(server, user="me", password="tr0ub4dor-and-3").send(message())
        wrong = to_ann(server, user="me", password="wr0ng-horse-77")
        with pytest.raises(OSError, match="535") as caught:
            wrong.send(message())
        assert len(server.received) == 1
    assert "wr0ng-horse-77" not in f"{caught.value!r} {wrong!r} {caplog.text}"
    assert mask_secrets("it said wr0ng-horse-77") == "it said ***"


def test_one_mailbox_that_is_refused_keeps_no_other_waiting(
    mail: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Sending it once more would send it to the others again."""
    mail.refused = {"gone@example.com"}
    to_ann(mail, "gone@example.com").send(message())
    assert [one.rcpt_tos for one in mail.received] == [["ann@example.com"]]
    assert "gone@example.com" in caplog.text
    mail.refused = {"ann@example.com", "gone@example.com"}
    with pytest.raises(OSError, match="550"):
        to_ann(mail, "gone@example.com").send(message())


def test_a_server_that_is_away_or_does_not_speak_tls(mail: MailServer) -> None:
    mail.away = 1
    with pytest.raises(OSError, match="451"):
        to_ann(mail).send(message())
    with pytest.raises(Exception, match="STARTTLS"):
        to_ann(mail, security="starttls").send(message())
    with pytest.raises(OSError, match=r"refused|111"):
        email("ann@example.com", sender="f@example.com", host="127.0.0.1", port=1, security="none").send(message())


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_over_tls_with_an_authority_of_ones_own(authority: Authority, security: str) -> None:
    served = {security: authority.server()}
    with mail_server(password="tr0ub4dor-and-3", **served) as server:
        login: dict[str, Any] = {"user": "me", "password": "tr0ub4dor-and-3", "security": security}
        to_ann(server, **login, context=authority.client()).send(message())
        assert (server.encrypted, len(server.mails)) == ([True], 1)
        with pytest.raises(ssl.SSLCertVerificationError):
            to_ann(server, **login).send(message())  # nobody but its own context trusts it
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            to_ann(server, **login, host="localhost", context=authority.client()).send(message())
        assert len(server.received) == 1


def test_a_server_that_wants_tls_gets_no_mail_without(authority: Authority) -> None:
    with mail_server(starttls=authority.server()) as server:
        with pytest.raises(OSError, match="STARTTLS"):
            to_ann(server, security="none").send(message())
        assert server.received == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"to": []}, "at least one"),
        ({"to": "ann"}, "give an address"),
        ({"to": 5}, "give an address"),
        ({"to": ["ann@example.com\nBcc: x@example.com"]}, "give an address"),
        ({"to": "ann@example.com, bob@example.com"}, "give an address"),
        ({"to": "a b@example.com"}, "give an address"),
        ({"sender": None}, "give an address"),
        ({"port": 0}, "1 to 65535"),
        ({"port": "25"}, "1 to 65535"),
        ({"security": "ssl"}, "starttls"),
        ({"security": ["tls"]}, "starttls"),
        ({"host": "mail example"}, "name of a server"),
        *(
            ({"host": odd}, "name of a server")
            for odd in ("", "a..b", "https://mail.example.com", "me@example.com")
        ),
        ({"timeout_seconds": 0}, "0.001 to 600"),
        ({"user": "me"}, "password="),
        ({"user": "me", "password": b"x"}, "give text"),
        ({"user": "me", "password": "x", "security": "none", "host": "mail.example.com"}, "in the clear"),
        # goauthentik/authentik#4535, mealie-recipes/mealie#8397: smtplib failed with them at each mail
        ({"user": "me", "password": "Ägypten-7"}, "ASCII"),
        ({"user": "mé", "password": "x"}, "ASCII"),
        ({"context": True}, "ssl.create_default_context"),
        # what a variable that is not set leaves of a recipient
        *(({"sender": odd}, "give an address") for odd in ("", " ", "a@", "@b", "<>", "a@b@c", "(")),
        ({"passwort": "x"}, "Did you mean 'password'"),
    ],
)
def test_what_cannot_be_mail_is_refused_early(options: dict[str, Any], says: str) -> None:
    settings: dict[str, Any] = {"to": "ann@example.com", "sender": "flow@example.com"}
    with pytest.raises(DefinitionError, match=says):
        email(**settings | options)


# --- webhook ----------------------------------------------------------------------------------------------


def test_a_webhook_is_posted_and_signed(hooks: HookServer) -> None:
    webhook(hooks.url, secret="s3cret-of-hooks", headers={"Authorization": "Bearer abcdefgh"}).send(message())
    (one,) = hooks.received
    assert one.path == "/hooks/7?x=1"
    document = json.loads(one.body)
    assert (document["id"], document["counts"], document["subject"]) == ("7", {"failed": 1}, "orders failed")
    event = {"event": "failed", "subject": "orders", "partition_key": "s:eu", "text": "no rows", "step_id": 3}
    assert document["events"] == [event | {"run_id": "r1", "at": AT.isoformat()}]
    header = one.headers["X-FlowStone-Signature"]
    assert one.headers["Authorization"] == "Bearer abcdefgh"
    assert is_signed(header, one.body, "s3cret-of-hooks")
    assert not is_signed(header, one.body + b" ", "s3cret-of-hooks")
    assert not is_signed(header, one.body, "another")
    assert not is_signed(signature("s3cret-of-hooks", one.body, at=0), one.body, "s3cret-of-hooks")
    bad_ones = ("", "t=,v1=", "t=x,v1=ä", "t=9" * 99, "v1=" + header, "t=1,v1=\udce4", header + "\udce4")
    assert not any(is_signed(bad, one.body, "s3cret-of-hooks") for bad in bad_ones)


def test_a_body_of_its_own_and_no_signature(hooks: HookServer) -> None:
    webhook(hooks.url, body=lambda one: {"text": one.subject}).send(message("größer"))
    (one,) = hooks.received
    assert json.loads(one.body) == {"text": "größer"}
    assert "X-FlowStone-Signature" not in one.headers


def test_a_webhook_over_tls_with_an_authority_of_ones_own(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with hook_server(tls=authority.server()) as hooks:
        webhook(hooks.url, context=authority.client()).send(message())
        assert json.loads(hooks.received[0].body)["id"] == "7"
        with pytest.raises(ssl.SSLCertVerificationError):
            webhook(hooks.url).send(message())
        other = webhook(hooks.url.replace("127.0.0.1", "localhost"), context=authority.client())
        with pytest.raises(ssl.SSLCertVerificationError, match="localhost"):
            other.send(message())
        assert len(hooks.received) == 1


def test_an_overloaded_receiver_gets_it_again(hooks: HookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    hooks.answers = [503, 429]
    webhook(hooks.url).send(message())
    assert [json.loads(one.body)["id"] for one in hooks.received] == ["7"] * 3
    assert pauses == [0.5, 1.0]


@pytest.mark.parametrize(
    ("answers", "posts", "says"), [([404], 1, "404"), ([302], 1, "302"), ([500] * 3, 3, "500")]
)
def test_a_receiver_that_refuses(
    hooks: HookServer, monkeypatch: pytest.MonkeyPatch, answers: list[int], posts: int, says: str
) -> None:
    """Redirects are not followed: the body may be for this receiver alone."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hooks.answers = list(answers)
    with pytest.raises(NotSentError, match=says):
        webhook(hooks.url).send(message())
    assert len(hooks.received) == posts


def test_a_receiver_that_hangs_or_is_away(hooks: HookServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    go_on = threading.Event()
    hooks.before = lambda: go_on.wait(10)
    with pytest.raises(TimeoutError):
        webhook(hooks.url, timeout_seconds=0.2, tries=1).send(message())
    go_on.set()
    with pytest.raises(OSError, match=r"refused|111"):
        webhook("http://127.0.0.1:1/", tries=1).send(message())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": ""}, "no host"),
        ({"url": 5}, "no address"),
        ({"url": "example.com/x"}, "no host"),
        ({"url": "ftp://example.com"}, "neither http nor https"),
        ({"url": "https://example.com/\r\nX: y"}, "no address"),
        ({"url": "https://example.com:x/"}, "Port"),
        ({"url": "https://me:secret@example.com/"}, "Authorization"),
        *(({"url": f"https://{host}/"}, "no host") for host in (".", "a..b", "a" * 64, "example.com:0")),
        ({"secret": ""}, "not empty"),
        ({"secret": "\ud800"}, "half characters"),
        ({"headers": ["x"]}, "dict of texts"),
        ({"headers": {"X-A": "a\r\nX-B: b"}}, "lines of ASCII"),
        ({"headers": {"Content-Type": "text/plain"}}, "is ours"),
        ({"headers": {"X Y": "a"}}, "lines of ASCII"),
        ({"headers": {" X": "a"}}, "lines of ASCII"),
        ({"context": "/etc/ca.pem"}, "ssl.create_default_context"),
        ({"timeout_seconds": -1}, "0.001 to 600"),
        ({"tries": 0}, "from 1 to 10"),
        ({"body": {"a": 1}}, "function of a message"),
        ({"retries": 3}, "no option|does not|retries"),
    ],
)
def test_what_cannot_be_a_webhook_is_refused_early(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says) as caught:
        webhook(**{"url": "https://example.com/"} | options)
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize(
    ("returned", "says"), [(None, "return a dict"), ([1], "return a dict"), ({"a": float("nan")}, "JSON")]
)
def test_a_body_that_is_no_json(hooks: HookServer, returned: Any, says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        webhook(hooks.url, body=lambda _: returned).send(message())
    assert hooks.received == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", "answered 302 Found"),
        (b"HTTP/1.1 500 \x1b[31m" + b"x" * 60_000 + b"\r\n\r\n", "answered 500"),
        (b"HTTP/1.1 404 " + b"x" * 100_000 + b"\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "more than 100 headers"),
        (b"SSH-2.0-OpenSSH_9\r\n", "SSH-2.0"),
        (b"", "closed connection|reset"),
    ],
    ids=["redirect", "long reason", "endless reason", "many headers", "no HTTP", "nothing"],
)
def test_an_answer_of_another_kind(answer: bytes, says: str) -> None:
    """It is an error that can be kept, whatever it says; a redirect is not followed."""
    with answering(answer) as port, pytest.raises(Exception, match=says):
        webhook(f"http://127.0.0.1:{port}/", tries=1, timeout_seconds=5).send(message())


def test_a_body_without_end_is_not_read() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n" + b"x" * 100_000) as port:
        webhook(f"http://127.0.0.1:{port}/", tries=1, timeout_seconds=5).send(message())


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Answer one request on a port with these bytes, whatever it is."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                while b"no rows" not in connection.recv(65_536):
                    pass
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


def test_the_address_of_a_webhook_is_a_secret() -> None:
    """That of Slack holds the token."""
    sender = webhook("https://hooks.example.com/services/T0/B0/abcdefghijkl", secret="a-secret-to-sign")
    assert repr(sender) == "webhook(https://hooks.example.com)"
    masked = mask_secrets("cannot post to https://hooks.example.com/services/T0/B0/abcdefghijkl a-secret-to-sign")
    assert "abcdefghijkl" not in masked
    assert "a-secret-to-sign" not in masked
    webhook("https://shop.example.com/")  # and one without a path holds none
    assert mask_secrets("see https://shop.example.com/ or /orders") == "see https://shop.example.com/ or /orders"


# --- apprise ----------------------------------------------------------------------------------------------


def test_apprise_delivers(hooks: HookServer) -> None:
    apprise(f"json://127.0.0.1:{hooks.port}/hooks").send(message("größer", good=True))
    (one,) = hooks.received
    document = json.loads(one.body)
    assert (document["title"], document["type"]) == ("größer", "success")
    assert "no rows" in document["message"]


def test_apprise_says_when_it_could_not(hooks: HookServer, caplog: pytest.LogCaptureFixture) -> None:
    hooks.answers = [500]
    with pytest.raises(NotSentError, match="json"):
        apprise([f"json://127.0.0.1:{hooks.port}/hooks"]).send(message())


@pytest.mark.parametrize("urls", [[], "", "nonsense", ["nosuch://token-of-mine/"], [5], 5, None])
def test_addresses_that_apprise_does_not_understand(urls: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DefinitionError) as caught:
        apprise(urls)
    assert "token-of-mine" not in f"{caught.value} {caplog.text}"


def test_senders_have_names() -> None:
    assert isinstance(webhook("https://example.com"), WebhookSender)
    assert [webhook("https://example.com").name, apprise("json://127.0.0.1/").name] == ["webhook", "apprise"]
