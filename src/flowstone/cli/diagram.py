"""The asset graph as text: a tree for terminals, Mermaid for documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flowstone.cli.output import one_line
from flowstone.core.graph import AssetGraph


def as_tree(graph: AssetGraph, names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a tree, sources first; an asset with several inputs is spelled out once.

    Args:
        graph: all assets.
        names: those to draw, upstream first.

    Example:
        >>> from flowstone.core.asset import asset
        >>> @asset
        ... def a(): ...
        >>> @asset
        ... def b(a): ...
        >>> print(*as_tree(AssetGraph([a, b]), ["a", "b"]), sep="\\n")
        a
        └── b
    """
    chosen = set(names)
    below = {name: [other for other in names if _reads(graph, other, name)] for name in names}
    roots = [
        name for name in names if not any(d.asset in chosen and d.asset != name for d in graph[name].dependencies)
    ]
    drawn: set[str] = set()
    # an explicit stack: a chain may be deeper than Python's recursion limit
    stack = [(name, "", "") for name in reversed(roots)]
    while stack:
        name, head, indent = stack.pop()
        repeated = name in drawn and below[name]
        yield f"{head}{one_line(name)}{' (see above)' if repeated else ''}"
        if repeated:
            continue
        drawn.add(name)
        children = below[name]
        for position, child in reversed(list(enumerate(children))):
            last = position == len(children) - 1
            stack.append((child, indent + ("└── " if last else "├── "), indent + ("    " if last else "│   ")))


def as_mermaid(graph: AssetGraph, names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a Mermaid flowchart.

    Args:
        graph: all assets.
        names: those to draw, upstream first.
    """
    number = {name: index for index, name in enumerate(names)}
    yield "flowchart LR"
    for name in names:
        text = (
            one_line(name).replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
        )
        yield f'    a{number[name]}["{text}"]'
    for name in names:
        for dependency in graph[name].dependencies:
            if dependency.asset in number:
                yield f"    a{number[dependency.asset]} --> a{number[name]}"


def _reads(graph: AssetGraph, name: str, upstream: str) -> bool:
    return any(dependency.asset == upstream != name for dependency in graph[name].dependencies)
