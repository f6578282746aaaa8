"""The two graphs of the inline figures, as plain functions made from source that `inspect` can read."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from typing import Any

type Functions = dict[str, Callable[..., Any]]

CHAIN_LENGTH = 100
LAYERS = 10
WIDTH = 10


def inputs_of(shape: str) -> dict[str, list[str]]:
    """Return asset name to the names it reads, upstream first.

    Args:
        shape: `chain` (100 assets in a row) or `layers` (10 layers of 10; each reads the whole layer before).
    """
    if shape == "chain":
        return {f"a{n}": [f"a{n - 1}"] if n else [] for n in range(CHAIN_LENGTH)}
    return {
        f"l{layer}_{n}": [f"l{layer - 1}_{k}" for k in range(WIDTH)] if layer else []
        for layer in range(LAYERS)
        for n in range(WIDTH)
    }


def ends_of(shape: str) -> list[str]:
    """Return the assets that nothing reads."""
    return [f"a{CHAIN_LENGTH - 1}"] if shape == "chain" else [f"l{LAYERS - 1}_{n}" for n in range(WIDTH)]


def expected(shape: str) -> int:
    """Return the value of the last asset: how many functions lie on the way to it."""
    return CHAIN_LENGTH if shape == "chain" else LAYERS


def functions(shape: str) -> Functions:
    """Return the functions by name: each adds one to its first input and does nothing else."""
    source = "\n".join(_source(name, reads) for name, reads in inputs_of(shape).items())
    filename = f"<benchmark {shape}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    namespace: dict[str, Any] = {"__name__": f"benchmark_{shape}"}
    exec(compile(source, filename, "exec"), namespace)
    return {name: namespace[name] for name in inputs_of(shape)}


def _source(name: str, reads: list[str]) -> str:
    parameters = ", ".join(f"{read}: int" for read in reads)
    return f"def {name}({parameters}) -> int:\n    return {reads[0] if reads else 0} + 1\n"
