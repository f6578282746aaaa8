"""dbt's words for a part of a project, `tag:nightly+ path:models/staging`, read without starting dbt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from flowstone.core.declaring import is_text, shown
from flowstone.dbt.manifest import DbtNode, Manifest
from flowstone.errors import DefinitionError, did_you_mean

_TERM = re.compile(r"(?P<at>@)?((?P<up>\d*)\+)?(?P<what>[^+@]+)(\+(?P<down>\d*))?")


def select_nodes(manifest: Manifest, select: object, exclude: object) -> set[str]:
    """Return the ids of the nodes and sources that are chosen.

    Args:
        manifest: the project.
        select: dbt's selection: a text or several; None for all.
        exclude: the same, for what is left out.

    Raises:
        DefinitionError: a method is not known here, or a selection has nothing in it.

    Example:
        >>> def node(name, *parents):
        ...     nodes = [f"model.shop.{parent}" for parent in parents]
        ...     fqn = ["shop", name]
        ...     return {"resource_type": "model", "name": name, "fqn": fqn, "depends_on": {"nodes": nodes}}
        >>> nodes = {"model.shop.a": node("a"), "model.shop.b": node("b", "a"), "model.shop.c": node("c", "b")}
        >>> manifest = Manifest({"metadata": {}, "nodes": nodes})
        >>> sorted(select_nodes(manifest, "1+c", None)), sorted(select_nodes(manifest, "a+", "c"))
        (['model.shop.b', 'model.shop.c'], ['model.shop.a', 'model.shop.b'])
    """
    everything = set(manifest.order)
    chosen = everything if select is None else _union(manifest, select, "select")
    left_out = set() if exclude is None else _union(manifest, exclude, "exclude")
    found = chosen - left_out
    if not found & manifest.nodes.keys():
        how = f"select={shown(select)}, exclude={shown(exclude)}"
        raise DefinitionError(f"dbt_assets({how}): nothing of the project {manifest.project!r} is left to build.")
    # what a chosen node reads of sources comes with it
    read = {parent for one in found & manifest.nodes.keys() for parent in manifest[one].parents}
    return found | {one for one in read if one in manifest.sources and one not in left_out}


def _union(manifest: Manifest, given: object, option: str) -> set[str]:
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, Iterable) or isinstance(listed, Mapping | bytes):
        raise DefinitionError(f"dbt_assets({option}={shown(given)}): give a text, or a list of texts.")
    found: set[str] = set()
    for text in listed:
        if not is_text(text):
            raise DefinitionError(f"dbt_assets({option}={shown(given)}): {shown(text)} selects nothing.")
        for term in text.split():
            found |= set.intersection(*(_term(manifest, part, option) for part in term.split(",")))
    return found


def _term(manifest: Manifest, text: str, option: str) -> set[str]:
    read = _TERM.fullmatch(text)
    if read is None:
        raise DefinitionError(f"dbt_assets({option}=...): {text!r} is no selection of dbt.")
    found = _matching(manifest, read["what"], option)
    children = _children(manifest)
    grown = set(found)
    if read["at"]:
        below = _reached(found, lambda one: children[one], None)
        return below.union(*(manifest.above[one] for one in below))
    if read["up"] is not None:
        grown |= _reached(found, lambda one: manifest[one].parents, int(read["up"]) if read["up"] else None)
    if read["down"] is not None:
        grown |= _reached(found, lambda one: children[one], int(read["down"]) if read["down"] else None)
    return {one for one in grown if one in manifest}


def _children(manifest: Manifest) -> dict[str, list[str]]:
    children: dict[str, list[str]] = {one: [] for one in manifest.order}
    for one in manifest.order:
        for parent in manifest[one].parents:
            children[parent].append(one)
    return children


def _reached(first: set[str], step: Callable[[str], Iterable[str]], limit: int | None) -> set[str]:
    found, edge = set(first), set(first)
    while edge and (limit is None or limit > 0):
        edge = {following for one in edge for following in step(one)} - found
        found |= edge
        limit = None if limit is None else limit - 1
    return found


def _matching(manifest: Manifest, text: str, option: str) -> set[str]:
    method, colon, value = text.partition(":")
    if not colon:
        method, value = ("path", text) if "/" in text or text.endswith((".sql", ".py", ".csv")) else ("fqn", text)
    name, _, key = method.partition(".")
    matches = _METHODS.get(name)
    if matches is None:
        raise DefinitionError(
            f"dbt_assets({option}=...): the method {name!r} of {text!r} is not read from a manifest."
            f"{did_you_mean(name, _METHODS)} Known: {', '.join(_METHODS)}."
        )
    return {one for one in manifest.order if matches(manifest[one], value, key)}


def _fqn(node: DbtNode, value: str, _key: str) -> bool:
    if node.is_source:
        return False
    if any(
        fnmatchcase(name, value) for name in (node.name, node.fqn[-1] if node.fqn else "", str(node.raw["name"]))
    ):
        return True
    parts = value.split(".")
    candidates = (node.fqn, node.fqn[1:])
    return any(
        len(parts) <= len(one) and all(fnmatchcase(have, part) for have, part in zip(one, parts, strict=False))
        for one in candidates
    )


def _source(node: DbtNode, value: str, _key: str) -> bool:
    parts = value.split(".")
    own = [node.package, *node.name.split(".", 1)]
    have = own if len(parts) == 3 else own[1:]
    return node.is_source and all(fnmatchcase(a, b) for a, b in zip(have, parts, strict=False))


def _path(node: DbtNode, value: str, _key: str) -> bool:
    given = value.removeprefix("./").rstrip("/")
    return node.path == given or node.path.startswith(f"{given}/") or fnmatchcase(node.path, given)


def _config(node: DbtNode, value: str, key: str) -> bool:
    found: Any = node.config.get(key)
    if isinstance(found, list):
        return value in map(str, found)
    return str(found).lower() == value.lower() if isinstance(found, bool) else str(found) == value


_METHODS: dict[str, Callable[[DbtNode, str, str], bool]] = {
    "fqn": _fqn,
    "tag": lambda node, value, _: any(fnmatchcase(tag, value) for tag in node.tags),
    "path": _path,
    "file": lambda node, value, _: fnmatchcase(node.path.rpartition("/")[2], value),
    "package": lambda node, value, _: node.package == value,
    "resource_type": lambda node, value, _: node.kind == value,
    "source": _source,
    "group": lambda node, value, _: node.group == value,
    "config": _config,
}
