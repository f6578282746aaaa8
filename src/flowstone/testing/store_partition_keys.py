"""Conformance of stores: the keys of dynamic partitions."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

from flowstone.core.automation.record import (
    AutomationId,
    AutomationKind,
    Conclusion,
    NewTick,
    PartitionChange,
    TickState,
)
from flowstone.core.partitions import KeyState, KnownKeys, encode_partition
from flowstone.testing.store_case import HOSTILE_TEXTS, StoreCase
from flowstone.testing.store_scene import Scene

A, B, C = "s:a", "s:b", "i:3"


class PartitionKeysTests(StoreCase):
    """What it means to add and remove keys."""

    def test_keys_come_in_the_order_of_their_addition(self, scene: Scene) -> None:
        """A key that is added again after its removal is the last one."""
        keys = scene.store.partition_keys
        assert keys.add("customers", [C, A]) == [C, A]
        assert keys.add("customers", [B]) == [B]
        assert keys.keys("customers") == [C, A, B]
        assert keys.remove("customers", [C]) == [C]
        assert keys.keys("customers") == [A, B]
        assert keys.add("customers", [C]) == [C]
        assert keys.keys("customers") == [A, B, C]

    def test_adding_and_removing_twice_changes_nothing(self, scene: Scene) -> None:
        """The answer says what was new, or what was there; the history says no more than happened."""
        keys = scene.store.partition_keys
        assert keys.add("customers", [A, A, B, A]) == [A, B]
        assert keys.add("customers", [B, C, A]) == [C]
        assert keys.remove("customers", [A, "s:nobody", A]) == [A]
        assert keys.remove("customers", [A]) == []
        assert (keys.add("customers", []), keys.remove("customers", [])) == ([], [])
        assert keys.keys("customers") == [B, C]
        changes = [(one.revision, one.key, one.removed) for one in keys.history("customers")]
        assert changes == [(4, A, True), (3, C, False), (2, B, False), (1, A, False)]

    def test_definitions_know_nothing_of_each_other(self, scene: Scene) -> None:
        """Keys and the numbers of their changes belong to one definition."""
        keys = scene.store.partition_keys
        assert (keys.keys("nobody"), keys.changed("nobody"), keys.history("nobody")) == ([], [], [])
        assert keys.remove("nobody", [A]) == []
        keys.add("customers", [A])
        keys.add("products", [A, B])
        keys.remove("customers", [A])
        assert (keys.keys("customers"), keys.keys("products")) == ([], [A, B])
        assert [one.revision for one in keys.history("products")] == [2, 1]

    def test_the_history_says_who_and_why(self, scene: Scene) -> None:
        """Newest first, of all keys or of one."""
        keys = scene.store.partition_keys
        keys.add("customers", [A, B], by="ann", reason="signed")
        keys.remove("customers", [A], by="bob \x00\x1b[31m")
        keys.add("customers", [A])
        reported = [(one.key, one.removed, one.by, one.reason) for one in keys.history("customers")]
        assert reported[0] == (A, False, None, None)
        assert reported[1][:2] == (A, True)
        assert reported[1][2] is not None
        assert "bob" in reported[1][2]
        assert "\x00" not in reported[1][2]
        assert reported[2:] == [(B, False, "ann", "signed"), (A, False, "ann", "signed")]
        of_one = keys.history("customers", A)
        assert [one.revision for one in of_one] == [4, 3, 1]
        assert [one.revision for one in keys.history("customers", A, limit=2)] == [4, 3]
        assert keys.history("customers", "s:nobody") == []
        assert of_one[0].at >= of_one[-1].at
        assert {one.definition for one in of_one} == {"customers"}

    def test_readers_catch_up_from_what_they_know(self, scene: Scene) -> None:
        """Only what changed since a revision is read, each key as it stands now."""
        keys = scene.store.partition_keys
        keys.add("customers", [A, B, C])
        assert keys.changed("customers") == [KeyState(A, 1, 1), KeyState(B, 2, 2), KeyState(C, 3, 3)]
        assert keys.changed("customers", after=3) == []
        keys.remove("customers", [A, B])
        keys.add("customers", [B])
        assert keys.changed("customers", after=3) == [KeyState(A, 1, 4), KeyState(B, 6, 6)]
        assert keys.changed("customers", after=4) == [KeyState(B, 6, 6)]
        assert [one.key for one in keys.changed("customers") if not one.removed] == [C, B]

    def test_hostile_names_and_keys(self, scene: Scene) -> None:
        """Whatever text can be a partition or a name comes back as it was."""
        keys = scene.store.partition_keys
        encoded = [encode_partition(text) for text in HOSTILE_TEXTS if len(text) < 1000]
        for name in HOSTILE_TEXTS[:-1]:
            assert keys.add(name, encoded) == encoded
            assert keys.keys(name) == encoded
        assert keys.remove(HOSTILE_TEXTS[0], encoded[1:]) == encoded[1:]
        assert keys.keys(HOSTILE_TEXTS[1]) == encoded

    def test_of_simultaneous_additions_one_is_the_new_one(self, scene: Scene) -> None:
        """Each key is new to one of those who add it, and changes are numbered without gaps."""
        keys = scene.store.partition_keys
        requested = [f"i:{number}" for number in range(40)]
        answers: list[list[str]] = []
        begin = threading.Barrier(4)

        def add(seed: int) -> None:
            mine = random.Random(seed).sample(requested, len(requested))  # noqa: S311 - an order, no secret
            begin.wait()
            answers.extend(keys.add("customers", mine[start : start + 10]) for start in range(0, len(mine), 10))

        threads = [threading.Thread(target=add, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(key for answer in answers for key in answer) == sorted(requested)
        history = keys.history("customers", limit=1000)
        assert [one.revision for one in history] == list(range(40, 0, -1))
        assert keys.keys("customers") == [one.key for one in reversed(history)]

    def test_an_automation_changes_keys_in_the_transaction_of_its_tick(self, scene: Scene) -> None:
        """A conclusion that comes too late changes none; the history names the automation."""
        inbox = AutomationId(AutomationKind.SENSOR, "inbox")
        automations, keys = scene.store.automations, scene.store.partition_keys
        keys.add("customers", [B])
        automations.declare([inbox])
        (taken,) = automations.take([inbox], lease_seconds=60.0)
        changes = [
            PartitionChange("customers", A),
            PartitionChange("customers", B, remove=True),
            PartitionChange("products", C),
        ]
        tick = NewTick(at=taken.now, state=TickState.SKIPPED, partitions=changes)
        conclusion = Conclusion(ticks=[tick], cursor="1", due_at=None)
        assert not automations.conclude(replace(taken, token=taken.token - 1), conclusion).accepted
        assert (keys.keys("customers"), keys.keys("products")) == ([B], [])
        assert automations.conclude(taken, conclusion).accepted
        assert (keys.keys("customers"), keys.keys("products")) == ([A], [C])
        assert {one.by for one in keys.history("customers", limit=2)} == {"sensor inbox"}

    def test_any_sequence_of_changes_agrees_with_a_model(self, scene: Scene) -> None:
        """Keys, what readers caught up with, and the replayed history are one and the same."""
        keys = scene.store.partition_keys
        chance = random.Random(7)  # noqa: S311 - an order, no secret
        model: list[str] = []
        caught_up = KnownKeys()
        for turn in range(60):
            chosen = [f"i:{chance.randrange(12)}" for _ in range(chance.randrange(4))]
            fresh = list(dict.fromkeys(chosen))
            if chance.random() < 0.6:
                new = [key for key in fresh if key not in model]
                assert keys.add("customers", chosen) == new
                model += new
            else:
                gone = [key for key in fresh if key in model]
                assert keys.remove("customers", chosen) == gone
                model = [key for key in model if key not in gone]
            if turn % 3 == 0:
                caught_up = caught_up.after(keys.changed("customers", after=caught_up.revision))
                assert list(caught_up.active) == model
        assert keys.keys("customers") == model
        replayed: list[str] = []
        for change in reversed(keys.history("customers", limit=1000)):
            if change.removed:
                replayed.remove(change.key)
            else:
                replayed.append(change.key)
        assert replayed == model
