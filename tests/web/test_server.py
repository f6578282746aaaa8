"""Where the dashboard may listen: on loopback alone, unless a setting says who may come."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from flowstone import FlowStone
from flowstone.errors import ConfigurationError
from flowstone.web import serving
from flowstone.web.server import is_loopback


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.0.2.1", "flow.example.com", "", "0", "127.0.0.1.example.com"]
)
def test_another_address_without_people_is_refused_before_anything_listens(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray CVE-2023-48022: a dashboard that every machine could reach, without a login, ran everybody's code."""
    opened: list[object] = []
    monkeypatch.setattr(socket, "create_server", lambda *args, **_: opened.append(args))
    assert not is_loopback(host)
    with (
        FlowStone.for_testing([]) as flow,
        pytest.raises(ConfigurationError, match="--users FILE"),
        serving(flow, host=host),
    ):
        pass
    assert opened == []


def test_a_file_of_tokens_alone_is_nobody_who_could_log_in(tmp_path: Path) -> None:
    users = tmp_path / "users.json"
    users.write_text("{}", encoding="utf-8")
    users.chmod(0o600)
    with (
        FlowStone.for_testing([]) as flow,
        pytest.raises(ConfigurationError),
        serving(flow, host="0.0.0.0", users_file=users),
    ):
        pass


def test_a_port_that_is_taken_is_named() -> None:
    with (
        FlowStone.for_testing([]) as flow,
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{taken.getsockname()[1]}.*--port 0"),
        serving(flow, port=taken.getsockname()[1]),
    ):
        pass
