"""Which addresses a dashboard has: those of the registry with sample values, and what its pages link to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.testclient import TestClient
from tests.web.markup import Document

from flowstone import FlowStone
from flowstone.web.registry import Page, Role, pages, url

_OF_ONE_KIND = 6
"""So many addresses of one page with the same fields are visited."""


def _newest_run(flow: FlowStone) -> str | None:
    found = flow.runs.latest(limit=1)
    return found[0].id if found else None


def _backfill(flow: FlowStone) -> str | None:
    return next((run.id for run in flow.runs.latest(limit=100) if run.kind == "backfill"), None)


def _step(flow: FlowStone) -> int | None:
    for run in flow.runs.latest(limit=20):
        for step in flow.runs.steps(run.id, limit=1):
            return step.id
    return None


def _asset(flow: FlowStone) -> str | None:
    return next((one.name for one in flow.graph), None)


def _target(flow: FlowStone) -> tuple[str, str] | None:
    for run in flow.runs.latest(limit=20):
        for step in flow.runs.steps(run.id, limit=1):
            return step.asset, flow.graph.label(step.asset, step.partition_key)
    return None


SAMPLES: dict[str, Callable[[FlowStone], dict[str, Any] | None]] = {
    "/run": lambda flow: _of("id", _newest_run(flow)),
    "/backfill": lambda flow: _of("id", _backfill(flow)),
    "/step": lambda flow: _of("id", _step(flow)),
    "/run/log": lambda flow: _of("id", _newest_run(flow)),
    "/step/log": lambda flow: _of("id", _step(flow)),
    "/asset": lambda flow: _of("name", _asset(flow)),
    "/approval": lambda flow: _of("id", next((one.id for one in flow.approvals.list(state=None)), None)),
    "/check": lambda flow: _of("asset", _asset(flow)),
    "/automation/details": lambda flow: next(
        ({"kind": one.kind, "name": one.name} for one in flow.insights.automations(limit=1).items), None
    ),
    "/queue": lambda flow: _of("name", "assets"),
    "/partition": lambda flow: (
        None if (target := _target(flow)) is None else {"asset": target[0], "partition": target[1]}
    ),
}
"""Values of the fields that a page needs; None where an app has nothing of the kind."""


PLANNED = frozenset(
    [
        "/",
        "/assets",
        "/graph",
        "/asset",
        "/partition",
        "/runs",
        "/run",
        "/backfill",
        "/step",
        "/queues",
        "/queue",
        "/workers",
        "/automation",
        "/approvals",
        "/approval",
        "/audit",
        "/system",
        "/search",
        "/checks",
        "/check",
        "/launch",
        "/logs",
        "/versions",
        "/schedule",
        "/sensor",
        "/condition",
        "/tick",
    ]
)
"""Pages that others link to already; one that is not registered yet is passed over."""


def _below(path: str, client: TestClient) -> str:
    # starlette's client takes the prefix away from the path itself, so its links keep it
    return path.removeprefix(str(getattr(client, "prefix", ""))) or "/"


def _of(field: str, value: object) -> dict[str, Any] | None:
    return None if value is None else {field: value}


def needed(page: Page) -> list[str]:
    """Return the fields of the query without which a page is none."""
    return [one.name for one in fields(page.query) if one.default is MISSING and one.default_factory is MISSING]


def addresses(flow: FlowStone, role: Role = Role.ADMIN) -> list[str]:
    """Return an address of each page that a role may see, for those that need no field or have a sample."""
    found = []
    for path, page in sorted(pages().items()):
        if page.role > role:
            continue
        sample = SAMPLES[path](flow) if path in SAMPLES else {}
        if sample is not None and set(needed(page)) <= set(sample):
            found.append(url(path, **sample))
    return found


def crawl(client: TestClient, start: Iterable[str], *, maximum: int) -> dict[str, str]:
    """Visit addresses and what they link to; return the pages by address.

    Fails for a link that leads nowhere, and for a page of the registry that needs a field, has no sample and is
    linked from nowhere although others of its kind are.
    """
    waiting, seen, visited = list(start), set[str](), dict[str, str]()
    kinds: dict[tuple[str, tuple[str, ...]], int] = defaultdict(int)
    while waiting and len(visited) < maximum:
        address = waiting.pop(0)
        parts = urlsplit(address)
        kind = (parts.path, tuple(sorted({name for name, _ in parse_qsl(parts.query, keep_blank_values=True)})))
        if address in seen or kinds[kind] >= _OF_ONE_KIND or "/static/" in parts.path:
            continue
        seen.add(address)
        kinds[kind] += 1
        if _below(parts.path, client) in PLANNED - set(pages()):
            continue
        answer = client.get(address)
        if parts.path.endswith((".json", "/download")) or "html" not in answer.headers.get("content-type", ""):
            assert answer.status_code in (200, 304), f"{address}: {answer.status_code} {answer.text[:300]}"
            continue
        assert answer.status_code == 200, (
            f"{address}: {answer.status_code} {Document(answer.text).all('main')[0].words()[:400]}"
        )
        visited[address] = answer.text
        waiting += [link for link in Document(answer.text).links() if link not in seen]
    return visited
