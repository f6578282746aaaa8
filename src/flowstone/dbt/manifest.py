"""What a dbt project consists of, read from the `manifest.json` that dbt writes: nodes, sources, tests, edges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
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
        found = self.raw.get("freshness")
        criteria = found if isinstance(found, Mapping) else {}
        limits = [criteria.get(name) for name in ("warn_after", "error_after")]
        return any(isinstance(limit, Mapping) and limit.get("count") for limit in limits)


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
        self._where = source
        self.project = str(metadata.get("project_name") or "dbt")
        self.adapter = str(metadata.get("adapter_type") or "")
        self._raw = {**self._section("nodes"), **self._section("functions")}
        self._macros = self._section("macros")
        self._units = self._section("unit_tests")
        self.sources: dict[str, DbtNode] = self._each(self._section("sources"), self._source)
        self.nodes: dict[str, DbtNode] = self._each(self._raw, self._node)
        self.tests: dict[str, DbtTest] = self._each({**self._raw, **self._units}, self._test)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Ids of sources and nodes, parents before children."""
        try:
            found = tuple(
                TopologicalSorter({one: node.parents for one, node in self.nodes.items()}).static_order()
            )
        except CycleError as error:
            circle = " -> ".join(error.args[1])
            raise DefinitionError(f"{self._where}: nodes read each other in a circle, {circle}.") from None
        return (*self.sources, *(one for one in found if one in self.nodes))

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

    def _section(self, name: str) -> dict[str, Document]:
        """Return a part of the document, by unique id."""
        found = self._document.get(name) or {}
        if not isinstance(found, Mapping) or not all(isinstance(one, Mapping) for one in found.values()):
            raise DefinitionError(f"{self._where}: `{name}` is not what dbt writes there. Run `dbt parse` again.")
        return dict(found)

    def _each[T](
        self, documents: Mapping[str, Document], read: Callable[[str, Document], T | None]
    ) -> dict[str, T]:
        """Read each of some documents, and leave out what is none of those that are looked for."""
        found: dict[str, T] = {}
        for unique_id, raw in documents.items():
            try:
                one = read(unique_id, raw)
            except (AttributeError, LookupError, TypeError, ValueError) as error:
                raise DefinitionError(
                    f"{self._where}: {shown(unique_id)} is not as dbt writes it "
                    f"({type(error).__name__}: {error}). Run `dbt parse` again."
                ) from error
            if one is not None:
                found[unique_id] = one
        return found

    def _node(self, unique_id: str, raw: Document) -> DbtNode | None:
        if not _is_built(raw):
            return None
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

    def _parents(self, raw: Document) -> Iterator[str]:
        """Yield what a node reads; an ephemeral model is text within others, so what it reads counts."""
        todo, seen = [*reversed(_reads(raw))], set[str]()
        while todo:
            parent = todo.pop()
            found = self._raw.get(parent)
            if parent in self.sources or (found is not None and _is_built(found)):
                yield parent
            elif found is not None and parent not in seen:
                seen.add(parent)
                todo += reversed(_reads(found))

    def _test(self, unique_id: str, raw: Document) -> DbtTest | None:
        config = raw.get("config") or {}
        is_unit = unique_id in self._units
        if not (is_unit or raw.get("resource_type") == "test") or config.get("enabled") is False:
            return None
        return DbtTest(
            unique_id=unique_id,
            name=str(raw.get("name")),
            kind="unit_test" if is_unit else "test",
            fqn=tuple(map(str, raw.get("fqn") or ())),
            parents=tuple(dict.fromkeys(self._parents(raw))),
            is_error=str(config.get("severity") or "error").lower() == "error",
            description=str(raw.get("description") or ""),
            path=str(raw.get("original_file_path") or ""),
        )

    def _code(self, raw: Document) -> str:
        """Return what changes when dbt would call the node modified: its file, its configuration, its macros."""
        found = hashlib.sha256()
        config = raw.get("unrendered_config") or raw.get("config")
        parts = [(raw.get("checksum") or {}).get("checksum"), json.dumps(config, sort_keys=True, default=str)]
        within = [self._raw[one] for one in self._ephemeral(raw)]
        parts += self._macro_texts([raw, *within])
        parts += [one.get("raw_code") for one in within]
        for part in parts:
            found.update(str(part).encode(errors="replace") + b"\0")
        return found.hexdigest()[:16]

    def _macro_texts(self, documents: Iterable[Document]) -> list[str]:
        todo = [name for one in documents for name in (one.get("depends_on") or {}).get("macros") or ()]
        seen = set[str]()
        while todo:
            macro = self._macros.get(name := todo.pop())
            if name not in seen and macro is not None:
                seen.add(name)
                todo += (macro.get("depends_on") or {}).get("macros") or ()
        return [str(self._macros[name].get("macro_sql")) for name in sorted(seen)]

    def _ephemeral(self, raw: Document) -> list[str]:
        """Return the ephemeral models whose text becomes part of a node, directly or within one another."""
        found = [one for one in _reads(raw) if one in self._raw and _is_ephemeral(self._raw[one])]
        for name in found:  # becomes longer
            found += [
                one
                for one in _reads(self._raw[name])
                if one in self._raw and one not in found and _is_ephemeral(self._raw[one])
            ]
        return found


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
    path = path_of("manifest", given)
    project = None
    try:
        if path.is_dir():
            path = path / "target" / "manifest.json"
        project = next((one for one in path.parents if (one / "dbt_project.yml").is_file()), None)
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        where = f" --project-dir {project}" if project is not None else ""
        raise DefinitionError(
            f"There is no manifest at {path}. dbt writes it: run `dbt parse{where}` (in a deployment while the "
            "image is built, not at start: processes that start side by side would all parse)."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DefinitionError(
            f"{path} cannot be read as a manifest of dbt: {error}. Run `dbt parse` again."
        ) from None
    return Manifest(document, str(path)), project


def path_of(option: str, given: str | Path) -> Path:
    """Return the absolute path that an option means.

    Raises:
        DefinitionError: it is none.
    """
    try:
        return Path(given).expanduser().absolute()
    except (OSError, RuntimeError, ValueError) as error:  # the home directory of a user who has none
        raise DefinitionError(f"dbt_assets({option}={shown(given)}): {error}") from None


def _reads(raw: Document) -> list[str]:
    return list((raw.get("depends_on") or {}).get("nodes") or ())


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
