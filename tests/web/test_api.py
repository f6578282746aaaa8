"""The JSON API: its OpenAPI document, that answers are what it promises, and that problems are documents too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.testclient import TestClient

from flowstone import FlowStone
from flowstone.web.access import UsersFile
from flowstone.web.openapi import Schemas
from flowstone.web.registry import Role, actions, pages
from flowstone.web.server import serving


def refused(schema: dict[str, Any], value: Any, named: dict[str, Any], place: str = "") -> list[str]:
    """Return where a value is not what a schema says; as much of JSON Schema as the document uses."""
    if "$ref" in schema:
        return refused(named[schema["$ref"].rpartition("/")[2]], value, named, place)
    if "anyOf" in schema:
        tries = [refused(one, value, named, place) for one in schema["anyOf"]]
        return [] if any(not one for one in tries) else tries[0]
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{place}: {value!r} is none of {schema['enum']}"]
    if schema.get("type") in ("object", "array") and not isinstance(value, dict | list):
        return [f"{place}: {value!r} is no {schema['type']}"]
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
    kind = schema.get("type")
    if kind == "object":
        missing = [f"{place}: no {name}" for name in schema.get("required", ()) if name not in value]
        known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        of_rest = rest if isinstance(rest, dict) else {}
        inner = [
            line
            for name, one in value.items()
            for line in refused(known.get(name, of_rest), one, named, f"{place}.{name}")
        ]
        return missing + inner
    if kind == "array":
        items = schema.get("prefixItems") or [schema.get("items", {})] * len(value)
        return [line for at, one in enumerate(value) for line in refused(items[at], one, named, f"{place}[{at}]")]
    if isinstance(kind, str) and not isinstance(value, kinds[kind]):  # type: ignore[arg-type]
        return [f"{place}: {value!r} is no {kind}"]
    return []


@pytest.fixture
def described(viewer: TestClient) -> dict[str, Any]:
    return dict(viewer.get("/api/v1/openapi.json").json())


def test_the_document_names_every_page_and_action(described: dict[str, Any]) -> None:
    found = {(path, method) for path, methods in described["paths"].items() for method in methods}
    expected = {(f"/api/v1{page.api}", "get") for page in pages().values()}
    expected |= {(f"/api/v1{page.api}", "post") for page in pages().values() if page.posts}
    expected |= {(f"/api/v1{path}", "post") for path in actions()}
    assert found == expected
    names = [one["operationId"] for methods in described["paths"].values() for one in methods.values()]
    assert len(set(names)) == len(names)


def test_the_document_is_well_made(described: dict[str, Any]) -> None:
    assert described["openapi"].startswith("3.1.")
    text = json.dumps(described)
    named = described["components"]["schemas"]
    refers = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert refers <= set(named)
    for path, methods in described["paths"].items():
        for method, one in methods.items():
            assert one["summary"], path
            assert one["x-role"] in {role.label for role in Role}
            assert "200" in one["responses"]
            assert ("requestBody" in one) == (method == "post")
    listed = {key for schema in named.values() for key in schema}
    assert listed <= {"type", "description", "required", "properties"}


def test_answers_are_what_the_document_promises(described: dict[str, Any], admin: TestClient) -> None:
    named = described["components"]["schemas"]
    wrong = []
    for page in pages().values():
        answer = admin.get(f"/api/v1{page.api}")
        if answer.status_code == 200 and answer.headers["content-type"] == "application/json":
            promised = described["paths"][f"/api/v1{page.api}"]["get"]["responses"]["200"]
            wrong += refused(promised["content"]["application/json"]["schema"], answer.json(), named, page.api)
        else:
            problem = named["Problem"]
            wrong += refused(problem, answer.json(), named, page.api) if answer.status_code != 200 else []
    assert wrong == []


class Colour(StrEnum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: str | None


@dataclass(frozen=True)
class Leaf[T]:
    items: tuple[T, ...]
    next: str | None = None


@dataclass(frozen=True)
class Tree:
    colour: Colour
    pair: Pair
    leaves: Leaf[Pair]
    at: datetime
    inner: Tree | None
    facts: dict[str, object]


def test_types_become_schemas() -> None:
    schemas = Schemas()
    assert schemas.of(Tree) == {"$ref": "#/components/schemas/Tree"}
    tree = schemas.named["Tree"]["properties"]
    assert tree["colour"] == {"enum": ["red"]}
    assert tree["inner"] == {"anyOf": [{"$ref": "#/components/schemas/Tree"}, {"type": "null"}]}
    assert schemas.named["LeafPair"]["properties"]["items"]["items"] == {"$ref": "#/components/schemas/Pair"}
    assert schemas.named["Pair"]["properties"]["left"] == {"type": "integer"}
    assert tree["facts"] == {"type": "object", "additionalProperties": {}}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 400),
        (b'"x"', 400),
        (b"{", 400),
        (b"\xff", 400),
        (b'{"a":' * 20_000, 400),
        (b'{"theme": "dark"}', 400),
        (b'{"no": NaN}', 400),
    ],
)
def test_bodies_that_cannot_be_read(admin: TestClient, body: bytes, status: int) -> None:
    for path in list(actions())[:1]:
        answer = admin.post(f"/api/v1{path}", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (status, 413), answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_other_sites_read_nothing(viewer: TestClient) -> None:
    answer = viewer.get("/api/v1/about", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"})
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_curl_of_the_page_works(flow: FlowStone, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("curl "))
    users = UsersFile(tmp_path / "users.json")
    with serving(flow, users_file=users.path) as address:
        served = line.replace("http://127.0.0.1:4300", address.partition("/login")[0])
        environment = {**os.environ, "TOKEN": users.new_token("ci", Role.OPERATOR)}
        done = subprocess.run(["sh", "-c", f"{served} -s"], env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout)["role"] == "operator"
