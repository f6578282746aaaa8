"""What every partitions definition must do, as tests to run on yours."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from datetime import datetime
from itertools import islice, pairwise

import pytest

from flowstone.core.definition import PartitionsDefinition, read_partition, write_partition
from flowstone.core.partitions import Partition, decode_partition, encode_partition
from flowstone.errors import PartitionError, UnknownPartitionError

_MAX = 200


class PartitionsConformance(ABC):
    """Tests of the meaning of a partitions definition; make a subclass whose name starts with `Test`.

    Override `create`, and `now` where the moment matters: at it, the definition has at least three complete keys.

    Example:
        >>> from datetime import UTC
        >>> from flowstone import DailyPartitions
        >>> class TestDays(PartitionsConformance):
        ...     def create(self):
        ...         return DailyPartitions("2024-01-01")
        ...     def now(self):
        ...         return datetime(2024, 2, 1, tzinfo=UTC)
        >>> TestDays().test_what_is_written_is_read_back()
    """

    @abstractmethod
    def create(self) -> PartitionsDefinition:
        """Return a definition; each time an equal one."""

    @abstractmethod
    def now(self) -> datetime:
        """Return a moment at which at least three keys are complete."""

    def complete(self) -> list[Partition]:
        """Return the first complete keys."""
        return list(islice(self.create().keys(self.now()), _MAX))

    def test_keys_are_partitions_each_once(self) -> None:
        """Every key has an exact text, is valid, and is there once."""
        found, texts = self.create(), [encode_partition(key) for key in self.complete()]
        assert len(set(texts)) == len(texts) >= 3
        for text in texts:
            key = decode_partition(text)
            assert encode_partition(found.validate(key)) == text
            assert key in found

    def test_what_is_written_is_read_back(self) -> None:
        """A label, and the encoded form, lead back to exactly the key; no two keys share a label."""
        found, labels = self.create(), set()
        for key in self.complete():
            text = encode_partition(key)
            labels.add(found.label(key))
            for written in (found.label(key), write_partition(found, text), text):
                assert written.isprintable()
                assert encode_partition(read_partition(found, written)) == text
        assert len(labels) == len(self.complete())

    def test_what_it_does_not_have_is_refused(self) -> None:
        """Values that are no keys raise errors that say so."""
        found = self.create()
        for wrong in (None, object(), 1.5, b"x"):
            assert wrong not in found
            with pytest.raises(PartitionError):
                found.validate(wrong)
        with pytest.raises(UnknownPartitionError):
            read_partition(found, "\x00 no partition \x00")

    def test_complete_means_the_same_everywhere(self) -> None:
        """`keys`, `last`, `is_complete` and `complete_at` agree."""
        found, now = self.create(), self.now()
        keys = list(found.keys(now))
        last = found.last(now)
        assert last is not None
        assert encode_partition(last) == encode_partition(keys[-1])
        for key in [*keys[:20], *keys[-20:]]:
            assert found.is_complete(key, now)
            end = found.complete_at(key)
            if end is not None:
                assert end <= now
                assert encode_partition(key) in [encode_partition(one) for one in found.keys(end)]

    def test_ranges_include_both_ends(self) -> None:
        """A range holds what lies between, with its ends, in order; a reversed one is an error."""
        found, now, keys = self.create(), self.now(), self.complete()
        assert list(found.between(keys[1], keys[2], now)) == keys[1:3]
        assert list(islice(found.between(None, keys[2], now), 3)) == keys[:3]
        assert list(found.between(keys[0], keys[0], now)) == keys[:1]
        with pytest.raises(PartitionError):
            list(found.between(keys[2], keys[0], now))

    def test_neighbours(self) -> None:
        """Where partitions have an order, `earlier` and `later` follow it."""
        found, keys = self.create(), self.complete()
        if type(found).earlier is PartitionsDefinition.earlier:
            pytest.skip("these partitions have no order")
        assert found.earlier(keys[0], 2) == []
        for before, after in pairwise(keys[:20]):
            assert found.earlier(after, 1) == [before]
            assert found.later(before, 1) == [after]
        assert found.earlier(keys[2], 2) == keys[:2]

    def test_equal_when_it_says_the_same(self) -> None:
        """Two definitions of the same partitions are equal, and described by JSON."""
        one, other = self.create(), self.create()
        assert one == other
        assert hash(one) == hash(other)
        assert json.loads(json.dumps(one.to_json())) == one.to_json()
