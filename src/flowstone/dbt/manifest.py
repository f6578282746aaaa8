"""What a dbt project consists of, read from the `manifest.json` that dbt writes: nodes, sources, tests, edges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from flowstone.core.declaring import shown
from flowstone.errors import DefinitionError

type Document = Mapping[str, Any]

BUILT = ("model", "seed", "snapshot", "function")
"""Types of the nodes that dbt makes something of in the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DbtNode:
    """One model, seed, snapshot, function or source of a project.

    Args:
        unique_id: such as `model.shop.orders`.
        kind: `model`, `seed`, `snapshot`, `function` or `source`.
        name: as it is referred to; with its version, `orders.v2`, when it has one.
        package: the project that it belongs to.
        fqn: name by directories, from the package on.
        parents: what it reads, as unique ids; through ephemeral models, which are no relations.
        tags: of the project.
        group: of the project.
        description: of the project.
        columns: documented columns, with `description` and `data_type` where these are known.
        relation: where it lies in the database, quoted as dbt does; None for what is no relation.
        database: name of the database.
        path: file, relative to its package.
        materialized: `table`, `view`, `incremental`, ...
        config: configuration as dbt resolved it.
        meta: `meta` of the node.
        code: changes with the code, the configuration and the macros.
        raw: the node as it stands in the manifest.
    """

    unique_id: str
    kind: str
    name: str
    package: str
    fqn: tuple[str, ...]
    parents: tuple[str, ...]
    tags: tuple[str, ...] = ()
    group: str | None = None
    description: str = ""
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    relation: str | None = None
    database: str | None = None
    path: str = ""
    materialized: str = ""
    config: Document = field(default_factory=dict)
    meta: Document = field(default_factory=dict)
    code: str = ""
    raw: Document = field(default_factory=dict, repr=False)

    @property
    def is_source(self) -> bool:
        """Whether other programs make it."""
        return self.kind == "source"

    @property
    def is_microbatch(self) -> bool:
        """Whether dbt computes it by event time."""
        return self.config.get("incremental_strategy") == "microbatch" and self.materialized == "incremental"

    @property
    def has_freshness(self) -> bool:
        """Whether dbt can say how old its data is."""
        criteria = self.raw.get("freshness") or {}
        return any((criteria.get(name) or {}).get("count") for name in ("warn_after", "error_after"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DbtTest:
    """One data test or unit test of a project.

    Args:
        unique_id: such as `test.shop.unique_orders_id.1f2e`.
        name: as dbt shows it.
        kind: `test` or `unit_test`.
        fqn: name by directories, from the package on.
        parents: what it reads, as unique ids; through ephemeral models.
        is_error: whether its failure is an error, and not a warning.
        description: of the project.
        path: file, relative to its package.
    """

    unique_id: str
    name: str
    kind: str
    fqn: tuple[str, ...]
    parents: tuple[str, ...]
    is_error: bool = True
    description: str = ""
    path: str = ""


class Manifest:
    """A manifest, read once.

    Args:
        document: the JSON document.
        source: where it comes from, for errors.

    Raises:
        DefinitionError: it is no manifest.

    Example:
        >>> node = {"resource_type": "model", "name": "orders", "package_name": "shop", "fqn": ["shop", "orders"]}
        >>> manifest = Manifest({"metadata": {"project_name": "shop"}, "nodes": {"model.shop.orders": node}})
        >>> [one.name for one in manifest.nodes.values()]
        ['orders']
    """

    def __init__(self, document: Any, source: str = "the manifest") -> None:
        metadata = document.get("metadata") if isinstance(document, Mapping) else None
        if not isinstance(metadata, Mapping) or not isinstance(document.get("nodes"), Mapping):
            raise DefinitionError(
                f"{source} is no manifest of dbt: it has no `metadata` and `nodes`. Give the manifest.json that "
                "`dbt parse` writes into the target directory of the project."
            )
        self._document = document
        self.project = str(metadata.get("project_name") or "dbt")
        self.adapter = str(metadata.get("adapter_type") or "")
        self._raw: dict[str, Document] = {**document["nodes"], **(document.get("functions") or {})}
        self._macros: Document = document.get("macros") or {}
        self.sources: dict[str, DbtNode] = {
            unique_id: self._source(unique_id, raw) for unique_id, raw in (document.get("sources") or {}).items()
        }
        self.nodes: dict[str, DbtNode] = {
            unique_id: self._node(unique_id, raw) for unique_id, raw in self._raw.items() if _is_built(raw)
        }
        self.tests: dict[str, DbtTest] = dict(self._tests())

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Ids of sources and nodes, parents before children."""
        done: dict[str, None] = dict.fromkeys(self.sources)
        for first in self.nodes:
            stack = [first]
            while stack:
                one = stack[-1]
                left = [parent for parent in self.nodes[one].parents if parent not in done]
                if left and len(stack) <= len(self.nodes):
                    stack += left
                    continue
                stack.pop()
                done[one] = None
        return tuple(done)

    @cached_property
    def above(self) -> Mapping[str, frozenset[str]]:
        """By id, everything that a node reads, directly or not."""
        found: dict[str, frozenset[str]] = {}
        for one in self.order:
            parents = self[one].parents
            found[one] = frozenset(parents).union(*(found[parent] for parent in parents))
        return found

    def __getitem__(self, unique_id: str) -> DbtNode:
        return self.nodes.get(unique_id) or self.sources[unique_id]

    def __contains__(self, unique_id: object) -> bool:
        return unique_id in self.nodes or unique_id in self.sources

    def _node(self, unique_id: str, raw: Document) -> DbtNode:
        config = raw.get("config") or {}
        version = raw.get("version")
        return DbtNode(
            unique_id=unique_id,
            kind=str(raw.get("resource_type")),
            name=str(raw["name"]) if version is None else f"{raw['name']}.v{version}",
            package=str(raw.get("package_name") or self.project),
            fqn=tuple(map(str, raw.get("fqn") or ())),
            parents=tuple(dict.fromkeys(self._parents(raw))),
            tags=tuple(map(str, raw.get("tags") or config.get("tags") or ())),
            group=raw.get("group") or config.get("group"),
            description=str(raw.get("description") or ""),
            columns=_columns(raw),
            relation=raw.get("relation_name"),
            database=raw.get("database"),
            path=str(raw.get("original_file_path") or ""),
            materialized=str(config.get("materialized") or raw.get("resource_type") or ""),
            config=config,
            meta=raw.get("meta") or config.get("meta") or {},
            code=self._code(raw),
            raw=raw,
        )

    def _source(self, unique_id: str, raw: Document) -> DbtNode:
        return DbtNode(
            unique_id=unique_id,
            kind="source",
            name=f"{raw.get('source_name')}.{raw.get('name')}",
            package=str(raw.get("package_name") or self.project),
            fqn=tuple(map(str, raw.get("fqn") or ())),
            parents=(),
            tags=tuple(map(str, raw.get("tags") or ())),
            description=str(raw.get("description") or raw.get("source_description") or ""),
            columns=_columns(raw),
            relation=raw.get("relation_name"),
            database=raw.get("database"),
            path=str(raw.get("original_file_path") or ""),
            materialized="source",
            config=raw.get("config") or {},
            meta={
                **(raw.get("source_meta") or {}),
                **((raw.get("config") or {}).get("meta") or {}),
                **(raw.get("meta") or {}),
            },
            raw=raw,
        )

    def _parents(self, raw: Document, seen: frozenset[str] = frozenset()) -> Iterator[str]:
        """Yield what a node reads; an ephemeral model is text within others, so what it reads counts."""
        for parent in (raw.get("depends_on") or {}).get("nodes") or ():
            found = self._raw.get(parent)
            if parent in self.sources or (found is not None and _is_built(found)):
                yield parent
            elif found is not None and parent not in seen:
                yield from self._parents(found, seen | {parent})

    def _tests(self) -> Iterator[tuple[str, DbtTest]]:
        units: Document = self._document.get("unit_tests") or {}
        tests = {unique_id: raw for unique_id, raw in self._raw.items() if raw.get("resource_type") == "test"}
        for unique_id, raw in {**tests, **units}.items():
            config = raw.get("config") or {}
            if config.get("enabled") is False:
                continue
            yield (
                unique_id,
                DbtTest(
                    unique_id=unique_id,
                    name=str(raw.get("name")),
                    kind="unit_test" if unique_id in units else "test",
                    fqn=tuple(map(str, raw.get("fqn") or ())),
                    parents=tuple(dict.fromkeys(self._parents(raw))),
                    is_error=str(config.get("severity") or "error").lower() == "error",
                    description=str(raw.get("description") or ""),
                    path=str(raw.get("original_file_path") or ""),
                ),
            )

    def _code(self, raw: Document) -> str:
        """Return what changes when dbt would call the node modified: its file, its configuration, its macros."""
        found = hashlib.sha256()
        config = raw.get("unrendered_config") or raw.get("config")
        parts = [(raw.get("checksum") or {}).get("checksum"), json.dumps(config, sort_keys=True, default=str)]
        parts += self._macro_texts(raw)
        parts += [self._raw[one].get("raw_code") for one in self._ephemeral(raw)]
        for part in parts:
            found.update(str(part).encode(errors="replace") + b"\0")
        return found.hexdigest()[:16]

    def _macro_texts(self, raw: Document) -> list[str]:
        todo, seen = list((raw.get("depends_on") or {}).get("macros") or ()), set[str]()
        while todo:
            macro = self._macros.get(name := todo.pop())
            if name not in seen and macro is not None:
                seen.add(name)
                todo += (macro.get("depends_on") or {}).get("macros") or ()
        return [str(self._macros[name].get("macro_sql")) for name in sorted(seen)]

    def _ephemeral(self, raw: Document) -> list[str]:
        parents = (raw.get("depends_on") or {}).get("nodes") or ()
        return [one for one in parents if one in self._raw and _is_ephemeral(self._raw[one])]


def read_manifest(given: object) -> tuple[Manifest, Path | None]:
    """Read a manifest, and find the project that it belongs to.

    Args:
        given: path of a manifest.json, of the directory of a project, or the document itself.

    Returns:
        The manifest, and the directory of the project when the path says it.

    Raises:
        DefinitionError: there is no manifest; says what to run.
    """
    if isinstance(given, Mapping):
        return Manifest(given), None
    if not isinstance(given, str | Path):
        raise DefinitionError(f"dbt_assets({shown(given)}): give the path of a manifest.json, or its content.")
    path = Path(given).expanduser().absolute()
    if path.is_dir():
        path = path / "target" / "manifest.json"
    project = next((one for one in path.parents if (one / "dbt_project.yml").is_file()), None)
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        where = f" --project-dir {project}" if project is not None else ""
        raise DefinitionError(
            f"There is no manifest at {path}. dbt writes it: run `dbt parse{where}` (in a deployment while the "
            "image is built, not at start: processes that start side by side would all parse)."
        ) from None
    except (OSError, ValueError) as error:
        raise DefinitionError(
            f"{path} cannot be read as a manifest of dbt: {error}. Run `dbt parse` again."
        ) from None
    return Manifest(document, str(path)), project


def _is_built(raw: Document) -> bool:
    enabled = (raw.get("config") or {}).get("enabled") is not False
    return raw.get("resource_type") in BUILT and not _is_ephemeral(raw) and enabled


def _is_ephemeral(raw: Document) -> bool:
    return (raw.get("config") or {}).get("materialized") == "ephemeral"


def _columns(raw: Document) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, column in (raw.get("columns") or {}).items():
        known = {key: column.get(key) for key in ("description", "data_type")}
        found[str(name)] = {key: str(value) for key, value in known.items() if value}
    return found
