"""The inputs of an asset: read from the parameters of its function and from `deps`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from flowstone.core.mapping import PartitionMapping
from flowstone.errors import DefinitionError

CONTEXT_PARAMETER = "context"
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


def dep(upstream: str | Named, *, mapping: PartitionMapping | None = None, optional: bool = False) -> Dependency:
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
    return Dependency(upstream if isinstance(upstream, str) else upstream.name, mapping, optional=optional)


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
    if isinstance(deps, str):
        raise DefinitionError(f"Asset {name!r}: deps={deps!r} must be a list or a mapping.", where=where)
    parameters = _parameters(function, name, where)
    takes_context = bool(parameters) and parameters[0].name == CONTEXT_PARAMETER
    by_parameter, alone = _split(deps, {p.name for p in parameters})
    found: list[Dependency] = []
    for parameter in parameters[takes_context:]:
        if parameter.kind not in _PLAIN_KINDS:
            raise DefinitionError(
                f"Asset {name!r}: parameter {parameter} cannot be filled from assets; name each input.",
                where=where,
            )
        given = by_parameter.pop(parameter.name, None)
        if given is not None:
            found.append(replace(given, parameter=parameter.name))
        elif parameter.default is inspect.Parameter.empty:
            found.append(Dependency(parameter.name, None, parameter.name))
    found.extend(alone)
    _check(name, where, found, unused=list(by_parameter))
    return tuple(found), takes_context


def _parameters(function: Callable[..., Any], name: str, where: str) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise DefinitionError(
            f"Asset {name!r}: {function!r} does not tell its parameters; wrap it in a function.", where=where
        ) from error


def _split(deps: Declared, parameters: set[str]) -> tuple[dict[str, Dependency], list[Dependency]]:
    if isinstance(deps, Mapping):
        return {parameter: _declared(item) for parameter, item in deps.items()}, []
    by_parameter: dict[str, Dependency] = {}
    alone = []
    for item in map(_declared, deps):
        if item.asset in parameters and item.asset not in by_parameter:
            by_parameter[item.asset] = item
        else:
            alone.append(item)
    return by_parameter, alone


def _declared(item: DependencyLike) -> Dependency:
    return item if isinstance(item, Dependency) else dep(item)


def _check(name: str, where: str, found: list[Dependency], *, unused: list[str]) -> None:
    if unused:
        listed = ", ".join(map(repr, unused))
        raise DefinitionError(f"Asset {name!r}: deps names parameters it does not have: {listed}.", where=where)
    names = [item.asset for item in found]
    doubled = sorted({item for item in names if names.count(item) > 1})
    if doubled:
        raise DefinitionError(f"Asset {name!r} depends more than once on {doubled}.", where=where)
    if name in names:
        raise DefinitionError(f"Asset {name!r} depends on itself.", where=where)
