"""Many partitions of one asset, without a Python object for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import batched, islice
from typing import overload

from flowstone.core.step import Target

_CHUNK = 1000


class PackedKeys:
    """Encoded partitions in the order in which they were given, each once, packed into a few long texts.

    An encoded partition is one line of text, so lines are a safe way to pack them. While the keys rise, which
    those of a time range do, none can be there twice and nothing has to be remembered.

    Args:
        keys: encoded partitions.

    Example:
        >>> list(PackedKeys(["s:b", "s:a", "s:b"]).read())
        ['s:b', 's:a']
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._chunks: list[str] = []
        rises = True
        last = ""
        for chunk in batched(keys, _CHUNK):
            rises = rises and last < chunk[0] and all(map(str.__lt__, chunk, chunk[1:]))
            last = chunk[-1]
            self._chunks.append("\n".join(chunk))
        if not rises:
            once = dict.fromkeys(self.read())
            self._chunks = ["\n".join(chunk) for chunk in batched(once, _CHUNK)]

    def read(self) -> Iterator[str]:
        """Yield the keys."""
        for chunk in self._chunks:
            yield from chunk.split("\n")


class PartitionTargets(Sequence[Target]):
    """Many partitions of one asset as targets, made when they are read: a large backfill is never a list.

    Args:
        asset: asset name.
        partitions: yields the partitions anew each time.
    """

    def __init__(self, asset: str, partitions: Callable[[], Iterable[str]]) -> None:
        self.asset = asset
        self.partitions = partitions
        self._total: int | None = None

    def __iter__(self) -> Iterator[Target]:
        return ((self.asset, key) for key in self.partitions())

    def __len__(self) -> int:
        if self._total is None:
            self._total = sum(1 for _ in self.partitions())
        return self._total

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    @overload
    def __getitem__(self, index: int) -> Target: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Target]: ...
    def __getitem__(self, index: int | slice) -> Target | Sequence[Target]:
        if isinstance(index, slice):
            # the first few are asked for without making the others
            first = index.stop is not None and index.stop >= 0 and index.start is None and index.step is None
            return list(islice(self, index.stop)) if first else list(self)[index]
        found = next(islice(self, index, None), None) if index >= 0 else list(self)[index]
        if found is None:
            raise IndexError(index)
        return found
