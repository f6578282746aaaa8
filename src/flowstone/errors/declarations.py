"""Errors in what users declare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flowstone.errors.root import FlowStoneError, did_you_mean, option_hint


class DefinitionError(FlowStoneError, ValueError):
    """An asset, job or app was declared in a way that cannot work.

    Args:
        message: what is wrong and what to do.
        where: `file:line` of the declaration, when known.
    """

    def __init__(self, message: str, *, where: str | None = None) -> None:
        self.where = where
        super().__init__(f"{message} ({where})" if where else message)


class UnknownOptionError(DefinitionError, TypeError):
    """A declaration was given an option that does not exist."""

    def __init__(self, about: str, option: str, known: Iterable[str], *, where: str | None = None) -> None:
        self.option = option
        listed = sorted(known)
        super().__init__(
            f"{about}: there is no option {option!r}.{option_hint(option, listed)} Options: {', '.join(listed)}.",
            where=where,
        )


class DuplicateAssetError(DefinitionError):
    """Two assets carry one name."""

    def __init__(self, name: str, first: str, second: str) -> None:
        self.name = name
        super().__init__(
            f"Two assets are named {name!r}: one at {first}, one at {second}. "
            "Rename one of them, or pass @asset(name=...)."
        )


class CycleError(DefinitionError):
    """Assets depend on each other in a circle."""

    def __init__(self, path: Sequence[str], where: Sequence[str]) -> None:
        self.path = tuple(path)
        places = ", ".join(f"{name} at {place}" for name, place in zip(path, where, strict=False))
        super().__init__(
            f"Assets depend on each other in a circle: {' -> '.join(path)}. "
            f"Remove one of these dependencies ({places})."
        )


class UnknownDependencyError(DefinitionError):
    """An asset depends on a name that no asset carries."""

    def __init__(self, asset: str, dependency: str, known: Iterable[str], *, where: str) -> None:
        self.asset = asset
        self.dependency = dependency
        super().__init__(
            f"Asset {asset!r} depends on {dependency!r}, which is not an asset of this app."
            f"{did_you_mean(dependency, known)} Add it to FlowStone([...]), or give the parameter a default "
            "value if it is not meant as a dependency.",
            where=where,
        )
