"""The JSON API as an OpenAPI 3.1 document, made of the dataclasses that pages and actions take and return."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import date, datetime, timedelta
from enum import Enum
from inspect import getdoc
from types import NoneType, UnionType
from typing import Any, Literal, TypeAliasType, TypeVar, Union, get_args, get_origin, get_type_hints

from flowstone import __version__
from flowstone.web.fields import MAX_ITEMS, MAX_NUMBER, MAX_TEXT, as_text, plain
from flowstone.web.registry import Action, Page, PlainFile

_PLAIN: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
    timedelta: {"type": "number", "description": "seconds"},
    NoneType: {"type": "null"},
}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "remedy"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong."},
        "remedy": {"type": "string", "description": "What to do next."},
        "incident": {"type": "string", "description": "Under which the log of the server has the details."},
    },
}


def document(pages: Iterable[Page], actions: Iterable[Action], *, base: str, prefix: str = "") -> dict[str, Any]:
    """Return the document.

    Args:
        pages: what is read.
        actions: what is done.
        base: where the API lies, such as "/api/v1".
        prefix: where the dashboard is mounted.

    Example:
        >>> document([], [], base="/api/v1")["openapi"]
        '3.1.0'
    """
    schemas = Schemas()
    paths: dict[str, Any] = {}
    for page in pages:
        paths[base + page.api] = {"get": _read(page, schemas)}
        if page.posts:
            paths[base + page.api]["post"] = _read_by_post(page, schemas)
    for action in actions:
        paths.setdefault(base + action.path, {})["post"] = _do(action, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "FlowStone",
            "version": __version__,
            "description": "What the pages of the dashboard show and do. Send `Authorization: Bearer TOKEN`.",
        },
        "servers": [{"url": prefix or "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": _PROBLEM, **schemas.named},
        },
    }


class Schemas:
    """JSON Schemas of types; each dataclass is written once and referred to."""

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}
        self._names: dict[Any, str] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        """Return the schema of a type, as `plain` writes its values.

        Example:
            >>> Schemas().of(tuple[int, ...] | None)
            {'anyOf': [{'type': 'array', 'items': {'type': 'integer'}}, {'type': 'null'}]}
        """
        if kind in _PLAIN:
            return dict(_PLAIN[kind])
        if isinstance(kind, TypeAliasType):
            return self.of(kind.__value__)
        if hasattr(kind, "__supertype__"):
            return self.of(kind.__supertype__)
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            return {"anyOf": [self.of(one) for one in arguments if one is not PlainFile]}
        if origin is Literal:
            return {"enum": [plain(one) for one in arguments]}
        if isinstance(kind, type) and issubclass(kind, Enum):
            return {"enum": [plain(one) for one in kind]}
        base = origin or kind
        if isinstance(base, type) and (is_dataclass(base) or hasattr(base, "_fields")):
            return {"$ref": f"#/components/schemas/{self._named(kind, base, arguments)}"}
        if isinstance(base, type) and issubclass(base, Mapping):
            return {"type": "object", "additionalProperties": self.of(arguments[1]) if arguments else True}
        if (isinstance(base, type) and issubclass(base, tuple | list | set | frozenset)) or _is_sequence(base):
            return self._array(base, arguments)
        if isinstance(base, type) and issubclass(base, str | int | float):
            return self.of(next(one for one in (bool, int, float, str) if issubclass(base, one)))
        return {}

    def _array(self, base: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if base is tuple and arguments and arguments[-1] is not Ellipsis:
            kinds = [self.of(one) for one in arguments]
            return {"type": "array", "prefixItems": kinds, "minItems": len(kinds), "maxItems": len(kinds)}
        return {"type": "array", "items": self.of(arguments[0]) if arguments else {}}

    def _named(self, kind: Any, base: type, arguments: tuple[Any, ...]) -> str:
        if kind in self._names:
            return self._names[kind]
        name = base.__name__ + "".join(getattr(one, "__name__", "Any") for one in arguments)
        while name in self.named:
            name += "_"
        self._names[kind] = name
        self.named[name] = {}  # known before its fields are, which may refer to it
        of = dict(zip(getattr(base, "__type_params__", ()), arguments, strict=False))
        hints = {one: _filled(hint, of) for one, hint in get_type_hints(base).items()}
        listed = [one.name for one in fields(base)] if is_dataclass(base) else list(getattr(base, "_fields", ()))
        self.named[name] = {
            "type": "object",
            "description": _first_line(base),
            "required": listed,
            "properties": {one: self.of(hints[one]) for one in listed},
        }
        return name

    def fields_of(self, kind: type) -> list[tuple[str, dict[str, Any], bool]]:
        """Return name, schema and whether it is needed, of each field that a request may carry."""
        hints, found = get_type_hints(kind), []
        for one in fields(kind):
            needed = one.default is MISSING and one.default_factory is MISSING
            found.append((one.name, _bounded(one, _taken(self.of(hints[one.name]))), needed))
        return found


def _read(page: Page, schemas: Schemas) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "query", "required": needed, "schema": schema}
        for name, schema, needed in schemas.fields_of(page.query)
    ]
    return _operation(page.title, f"get{_camel(page.api)}", page, _model(page, schemas), parameters=parameters)


def _read_by_post(page: Page, schemas: Schemas) -> dict[str, Any]:
    body = _body(page.query, schemas)
    return _operation(page.title, f"read{_camel(page.api)}", page, _model(page, schemas), requestBody=body)


def _do(action: Action, schemas: Schemas) -> dict[str, Any]:
    done = {
        "type": "object",
        "required": ["message", "location", "result"],
        "properties": {
            "message": {"type": "string", "description": "What was done, as a sentence."},
            "location": {"type": ["string", "null"], "description": "The page about it."},
            "result": {},
        },
    }
    name = f"do{_camel(action.path)}"
    return _operation(action.title, name, action, done, requestBody=_body(action.form, schemas))


def _operation(title: str, name: str, subject: Page | Action, answer: Any, **more: Any) -> dict[str, Any]:
    return {
        "summary": title,
        "description": f"{_first_line(subject.function)} Needs the role {subject.role.label}.".strip(),
        "operationId": name,
        "x-role": subject.role.label,
        **more,
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": {"schema": answer}}},
            "default": {
                "description": "What is wrong, and what to do.",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }


def _model(page: Page, schemas: Schemas) -> dict[str, Any]:
    return schemas.of(get_type_hints(page.function).get("return", Any))


def _body(form: type, schemas: Schemas) -> dict[str, Any]:
    listed = schemas.fields_of(form)
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name, _, needed in listed if needed],
        "properties": {name: schema for name, schema, _ in listed},
    }
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _taken(schema: dict[str, Any]) -> dict[str, Any]:
    """Return what a request may carry: null is the same as leaving a field out."""
    left = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    return left[0] if len(left) == 1 else schema


def _bounded(one: Field[Any], schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") in ("integer", "number"):
        bounds = {name: one.metadata.get(name, value) for name, value in (("minimum", 0), ("maximum", MAX_NUMBER))}
        schema = {**schema, **bounds, "description": "A number outside of the bounds is moved into them."}
    if schema == {"type": "string"}:
        schema = {**schema, "maxLength": one.metadata.get("maximum_text", MAX_TEXT)}
    if schema.get("type") == "array":
        schema = {**schema, "maxItems": one.metadata.get("maximum_items", MAX_ITEMS)}
    if one.default is not MISSING and one.default is not None:
        schema = {**schema, "default": plain(one.default)}
    return schema


def _filled(hint: Any, of: Mapping[Any, Any]) -> Any:
    """Put the arguments of a generic class into the type of one of its fields."""
    if isinstance(hint, TypeVar):
        return of.get(hint, Any)
    parameters = getattr(hint, "__parameters__", ())
    return hint[tuple(of.get(one, Any) for one in parameters)] if parameters else hint


def _is_sequence(base: Any) -> bool:
    return getattr(base, "__module__", "") == "collections.abc" and base.__name__ in (
        "Sequence",
        "Iterable",
        "Collection",
        "Set",
    )


def _first_line(described: object) -> str:
    return (getdoc(described) or "").partition("\n")[0]


def _camel(path: str) -> str:
    """Return a path as part of a name.

    Example:
        >>> _camel("/runs/cancel-all")
        'RunsCancelAll'
    """
    return "".join(word.capitalize() for word in as_text(path).replace("-", "/").split("/"))
