"""The inputs of an asset: read from the parameters of its function and from `deps`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from flowstone.core.declaring import is_text, known_options, shown, signature_of
from flowstone.core.mappings import PartitionMapping
from flowstone.errors import DefinitionError

CONTEXT_PARAMETER = "context"
_CONTEXT_LIKE = frozenset({"ctx", "_ctx", "_context", "context_", "_", "asset_context", "run_context"})
_CONTEXT_TYPE = "AssetContext"
_PLAIN_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Named(Protocol):
    """Anything with a name, in practice an asset."""

    name: str


@dataclass(frozen=True, slots=True)
class Dependency:
    """One input of an asset.

    Args:
        asset: name of the upstream asset.
        mapping: which of its partitions are read; None chooses by the two definitions.
        parameter: parameter that receives the value; None for an input that only has to be there.
        optional: whether the asset also runs when this input was skipped.

    Example:
        >>> Dependency("orders", parameter="orders").asset
        'orders'
    """

    asset: str
    mapping: PartitionMapping | None = None
    parameter: str | None = None
    optional: bool = False


type DependencyLike = str | Named | Dependency
type Declared = Mapping[str, DependencyLike] | Iterable[DependencyLike]


@known_options("dep()")
def dep(
    upstream: str | Named,
    *,
    mapping: PartitionMapping | None = None,
    optional: bool = False,
) -> Dependency:
    """Describe a dependency for `@asset(deps=...)`.

    Args:
        upstream: the asset, or its name.
        mapping: which of its partitions are read.
        optional: run also when this input was skipped: its parameter is None then. An asset is skipped itself
            when a required input was skipped, or all of its inputs were.

    Example:
        >>> dep("orders", optional=True).optional
        True
    """
    name = upstream if isinstance(upstream, str) else getattr(upstream, "name", None)
    if not is_text(name):
        raise DefinitionError(f"dep({shown(upstream)}): give an asset, or its name.")
    if mapping is not None and not isinstance(mapping, PartitionMapping):
        raise DefinitionError(
            f"dep({name!r}, mapping={shown(mapping)}): give a partition mapping, such as SameKey()."
        )
    if not isinstance(optional, bool):
        raise DefinitionError(f"dep({name!r}, optional={shown(optional)}): give True or False.")
    return Dependency(str(name), mapping, optional=optional)


def read_dependencies(
    function: Callable[..., Any], deps: Declared, *, name: str, where: str
) -> tuple[tuple[Dependency, ...], bool]:
    """Find the inputs of an asset.

    Args:
        function: the asset's function.
        deps: parameter name to asset; or a list, whose entries either refine the parameter of the same
            name or are inputs that only have to be there.
        name: the asset's name, for errors.
        where: its file and line, for errors.

    Returns:
        The dependencies in the order of the parameters, and whether the first parameter is the context.

    Raises:
        DefinitionError: a parameter cannot be filled, or a dependency is doubled or circular.
    """
    about = f"Asset {name!r}"
    parameters = signature_of(function, about, where)
    takes_context = bool(parameters) and parameters[0].name == CONTEXT_PARAMETER
    try:
        by_parameter, alone = _split(deps, {p.name for p in parameters})
    except DefinitionError as error:
        raise DefinitionError(f"{about}: {error}", where=where) from None
    found: list[Dependency] = []
    for position, parameter in enumerate(parameters[takes_context:], start=1 + takes_context):
        given = by_parameter.pop(parameter.name, None)
        required = given is not None or parameter.default is inspect.Parameter.empty
        if parameter.kind not in _PLAIN_KINDS and required:
            raise DefinitionError(f"{about}: {_unusable(parameter)}", where=where)
        if given is None and required:
            _refuse_other_context(parameter, position, about, where)
        if given is not None:
            found.append(replace(given, parameter=parameter.name))
        elif required:
            found.append(Dependency(parameter.name, None, parameter.name))
    found.extend(alone)
    _check(name, where, found, unused=list(by_parameter))
    return tuple(found), takes_context


def _unusable(parameter: inspect.Parameter) -> str:
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        return (
            f"parameter {parameter.name} cannot be filled: it takes its value by position only, and inputs "
            "are passed by name. Take the `/` out of the signature, or wrap the function in one of your own."
        )
    return (
        f"parameter {parameter} cannot be filled from assets; name each input. If a decorator hides the "
        "parameters of the function, write functools.wraps(function) above its wrapper."
    )


def _refuse_other_context(parameter: inspect.Parameter, position: int, about: str, where: str) -> None:
    """Refuse a parameter that is meant for the context and would not receive it."""
    annotation = parameter.annotation
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    annotated = text.strip("'\"").rpartition(".")[2] == _CONTEXT_TYPE
    if parameter.name == CONTEXT_PARAMETER:
        problem = f"the parameter 'context' is number {position}; it must be the first one"
    elif annotated or (position == 1 and parameter.name in _CONTEXT_LIKE):
        problem = (
            f"the parameter {parameter.name!r} would be an input, the asset of that name; the one that receives "
            f"the context is the first one and is called {CONTEXT_PARAMETER!r}"
        )
    else:
        return
    raise DefinitionError(f"{about}: {problem}. Write: def function(context, ...).", where=where)


def _split(deps: Declared, parameters: set[str]) -> tuple[dict[str, Dependency], list[Dependency]]:
    if isinstance(deps, Mapping):
        for parameter in deps:
            if not isinstance(parameter, str):
                raise DefinitionError(f"deps has the key {shown(parameter)}; the keys are names of parameters.")
        return {parameter: _declared(item) for parameter, item in deps.items()}, []
    if isinstance(deps, str | bytes) or not isinstance(deps, Iterable):
        raise DefinitionError(f"deps={shown(deps)} must be a list or a mapping, such as deps=[{_example(deps)}].")
    by_parameter: dict[str, Dependency] = {}
    alone = []
    # the same order in every process, also of a set
    listed = sorted(deps, key=_sorting) if isinstance(deps, set | frozenset) else list(deps)
    for item in map(_declared, listed):
        if item.asset in parameters and item.asset not in by_parameter:
            by_parameter[item.asset] = item
        else:
            alone.append(item)
    return by_parameter, alone


def _declared(item: DependencyLike) -> Dependency:
    return item if isinstance(item, Dependency) else dep(item)


def _example(deps: object) -> str:
    return repr(deps) if isinstance(deps, str) else str(getattr(deps, "name", '"orders"'))


def _sorting(item: object) -> str:
    return item if isinstance(item, str) else str(getattr(item, "asset", getattr(item, "name", item)))


def _check(name: str, where: str, found: list[Dependency], *, unused: list[str]) -> None:
    if unused:
        listed = ", ".join(map(repr, unused))
        raise DefinitionError(f"Asset {name!r}: deps names parameters it does not have: {listed}.", where=where)
    names = [item.asset for item in found]
    doubled = sorted({item for item in names if names.count(item) > 1})
    if doubled:
        raise DefinitionError(f"Asset {name!r} depends more than once on {doubled}.", where=where)
    itself = next((item for item in found if item.asset == name), None)
    if itself is not None and (itself.mapping is None or not itself.mapping.earlier):
        raise DefinitionError(
            f"Asset {name!r} depends on itself. It can only read partitions of its own that come before: "
            f"deps=[dep({name!r}, mapping=Previous())].",
            where=where,
        )
