"""The shape of an asset: what must be the same for whoever places a step and whoever runs it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, NamedTuple

from flowstone.core.asset import Asset
from flowstone.core.definition import PartitionsDefinition
from flowstone.core.graph import AssetGraph
from flowstone.core.mappings import SameKey
from flowstone.core.partitions import PartitionKey, decode_partition, encode_partition
from flowstone.core.partitions_by_key import DynamicPartitions, MultiPartitions
from flowstone.core.scatter import ItemAsset
from flowstone.core.step import Attempt, KnownAssets
from flowstone.errors import PartitionError, StepChangedError, UnknownAssetError

_MAX_LENGTH = 200
_MAX_FOUND = 4096
_EQUAL_MEANS_SAME = (str, int, date)
"""Types whose equal values have the same key; equal datetimes may differ in their zone."""
_OURS = "flowstone.core."
_WHICH_KEYS = ("type", "keys", "start", "end")


@dataclass(frozen=True, slots=True)
class AssetShape:
    """What an app declares of one asset, as far as others have to agree: as text, the same in every process.

    Args:
        kind: kind of its partitions; empty for none. Which keys there are may differ, step by step that is seen.
        partitions: the definition, for people.
        inputs: its dependencies in order, each with parameter and mapping.
        io: name of its IO manager.
    """

    kind: str
    partitions: str
    inputs: tuple[str, ...]
    io: str

    @property
    def digest(self) -> str:
        """What is recorded with the steps that are placed."""
        return _digest([self.kind, self.inputs, self.io])

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, its digest included."""
        return asdict(self) | {"digest": self.digest}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AssetShape:
        """Return what `to_json` gave."""
        return cls(data["kind"], data["partitions"], tuple(data["inputs"]), data["io"])

    def describe(self) -> str:
        """Return it for people."""
        return f"{self.partitions or 'no partitions'}, {_inputs(self.inputs)}, io {self.io!r}"

    def difference(self, other: AssetShape) -> str:
        """Return what is declared here and in another app, where they disagree; empty when they agree.

        Example:
            >>> AssetShape("", "", (), "postgres").difference(AssetShape("", "", ("raw",), "filesystem"))
            "no inputs instead of inputs raw; io 'postgres' instead of 'filesystem'"
        """
        found = []
        if self.kind != other.kind:
            found.append(f"{self.partitions or 'no partitions'} instead of {other.partitions or 'no partitions'}")
        if self.inputs != other.inputs:
            found.append(f"{_inputs(self.inputs)} instead of {_inputs(other.inputs)}")
        if self.io != other.io:
            found.append(f"io {self.io!r} instead of {other.io!r}")
        return "; ".join(found)


class Shapes:
    """The shapes of the assets of an app, each made when it is asked for first.

    Args:
        graph: the assets.
        io: returns the name of the IO manager of an asset.
    """

    def __init__(self, graph: AssetGraph, io: Callable[[Asset], str]) -> None:
        self._graph = graph
        self._io = io
        self._known: dict[str, _Known] = {}
        self._found: set[tuple[str, str]] = set()

    def __getitem__(self, name: str) -> AssetShape:
        return self._of(name).shape

    def digest(self, name: str) -> str:
        """Return the digest of an asset's shape."""
        return self._of(name).digest

    def keys_digest(self, name: str) -> str | None:
        """Return the digest of all that says which partitions an asset has.

        Where two processes have the same one, each has the partitions of the other. None for definitions that are
        not ours: what they describe of themselves may not be all that they go by.
        """
        return self._of(name).keys

    def to_json(self) -> dict[str, Any]:
        """Return the shapes of all assets."""
        return {asset.name: self[asset.name].to_json() for asset in self._graph}

    def disagreements(self, others: Iterable[tuple[str, KnownAssets]]) -> Iterator[str]:
        """Say of each asset that others declare otherwise who does, and what differs; the first of them each.

        Args:
            others: id and known assets of living workers and applications.
        """
        reported = set()
        for who, known in others:
            for name, described in known.items():
                if name in reported or name not in self._graph or described["digest"] == self.digest(name):
                    continue
                reported.add(name)
                different = self[name].difference(AssetShape.from_json(described))
                yield f"asset {name!r} is declared here with {different}, as {who} has it"

    def problem(self, attempt: Attempt) -> Exception | None:
        """Return why a step that was placed, maybe by other code, cannot be run as it was placed; else None.

        Args:
            attempt: of the step, with the digest of the shape that it was placed with.
        """
        name, key = attempt.asset, attempt.partition_key
        known = self._known.get(name)
        if (
            known is not None
            and attempt.shape == known.digest
            and attempt.keys is not None
            and attempt.keys == known.keys
        ):
            return None  # placed with the very same declaration
        if name not in self._graph:
            return UnknownAssetError(name, self._graph.assets)
        asset = self._graph[name]
        if attempt.shape is not None and attempt.shape != self.digest(name):
            return StepChangedError(name, key, f"it is declared now with {self[name].describe()}")
        if isinstance(asset, ItemAsset) or self._has(name, key):
            return None
        if asset.partitions is None:
            return StepChangedError(name, key, "the asset has no partitions now")
        if not key:
            return StepChangedError(name, key, f"the asset has partitions now: {self[name].partitions}")
        return StepChangedError(name, key, f"the partitions are now {self[name].partitions}")

    def _has(self, name: str, key: PartitionKey) -> bool:
        """Whether an asset has a partition; a worker asks when it takes a step and when it prepares it."""
        if (name, key) in self._found:
            return True
        if not _has_partition(self._graph[name].partitions, key):
            return False  # not kept: a key may be added while this runs
        if len(self._found) >= _MAX_FOUND:
            self._found.clear()
        self._found.add((name, key))
        return True

    def _of(self, name: str) -> _Known:
        found = self._known.get(name)
        if found is None:
            asset = self._graph[name]
            shape = _shape(self._graph, asset, self._io(asset))
            found = self._known[name] = _Known(shape, shape.digest, _keys_digest(asset.partitions))
        return found


class _Known(NamedTuple):
    shape: AssetShape
    digest: str
    keys: str | None


def _shape(graph: AssetGraph, asset: Asset, io: str) -> AssetShape:
    inputs = []
    for one in asset.dependencies:
        mapping = type(graph.mapping(asset.name, one.asset))
        read_as = "" if one.parameter in (None, one.asset) else f" as {one.parameter}"
        through = "" if mapping is SameKey else f" through {mapping.__name__}"
        inputs.append(f"{one.asset}{read_as}{through}{' (optional)' if one.optional else ''}")
    return AssetShape(_kind(asset.partitions), _written(asset.partitions), tuple(inputs), io)


def _kind(definition: PartitionsDefinition | None) -> str:
    if definition is None:
        return ""
    if isinstance(definition, MultiPartitions):
        return ", ".join(f"{name}: {_kind(one)}" for name, one in definition.dimensions.items())
    described = {name: value for name, value in definition.to_json().items() if name not in _WHICH_KEYS}
    return f"{type(definition).__name__} {json.dumps(described, default=str, sort_keys=True)}"


def _digest(described: object) -> str:
    text = json.dumps(described, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _keys_digest(definition: PartitionsDefinition | None) -> str | None:
    if definition is None:
        return _digest(None)
    parts = list(definition.dimensions.values()) if isinstance(definition, MultiPartitions) else [definition]
    if not all(type(one).__module__.startswith(_OURS) for one in parts):
        return None
    return _digest([[type(one).__name__ for one in parts], definition.to_json()])


def _written(definition: PartitionsDefinition | None) -> str:
    text = "" if definition is None else repr(definition)
    if len(text) <= _MAX_LENGTH:
        return text
    return f"{text[:_MAX_LENGTH]}… ({hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]})"


def _has_partition(definition: PartitionsDefinition | None, key: PartitionKey) -> bool:
    """Whether an encoded key is one of these partitions; keys that come and go are, also when they are gone."""
    if definition is None or not key:
        return definition is None and not key
    if isinstance(definition, DynamicPartitions):
        return True
    try:
        value = decode_partition(key)
        found = definition.with_removed().validate(value)
        # exactly this key: a definition also takes what a person would write for it
        if type(found) is type(value) and type(value) in _EQUAL_MEANS_SAME:
            return found == value
        return key == encode_partition(found)
    except (PartitionError, ValueError):
        return False


def _inputs(inputs: Iterable[str]) -> str:
    listed = ", ".join(inputs)
    return f"inputs {listed}" if listed else "no inputs"
