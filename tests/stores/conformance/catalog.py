"""Reading in every store: what is committed and what happened, checks, dynamic keys, how targets stand."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.stores.conformance.case import HOSTILE_TEXTS, Scene, StoreCase, failed, skipped, snoozed, succeeded

from flowstone.core.automation.facts import DataVersion, TargetStatus
from flowstone.core.automation.record import (
    AutomationId,
    AutomationKind,
    Conclusion,
    NewTick,
    PartitionChange,
    TickState,
)
from flowstone.core.outcome import AttemptOutcome, Stopped, Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.partitions import KeyState, KnownKeys, encode_partition
from flowstone.core.state import State
from flowstone.core.step import Attempt, AttemptResult, CheckRecord, CommitResult, NewStep, Severity, Target


class CatalogTests(StoreCase):
    """What the reading side of a store means."""

    def test_unknown_ids_have_no_answer(self, scene: Scene) -> None:
        """Asking for what is not there is no error."""
        catalog = scene.store.catalog
        assert catalog.step(987654321) is None
        assert catalog.run("nope") is None
        assert (catalog.steps("nope"), catalog.runs(), catalog.attempts(987654321)) == ([], [], [])
        assert catalog.history("nope", None) == catalog.history("nope", "s:x") == []
        assert (catalog.current([("nope", "")]), catalog.current([])) == ({}, {})
        assert (catalog.inputs([]), catalog.readers([])) == ({}, {})
        assert not catalog.inputs([987654321]).get(987654321)
        assert not catalog.readers([987654321]).get(987654321)
        assert catalog.resolve([("nope", "nope", "")]) == [None]
        assert catalog.resolve([]) == []

    def test_counts_and_state_of_a_run(self, scene: Scene) -> None:
        """A run is what its steps are."""
        steps = [NewStep("good", ""), NewStep("bad", ""), NewStep("below", "", inputs=(1,)), NewStep("skip", "")]
        placed = scene.open("run", steps, kind="backfill", selection="*", priority=8, max_concurrency=7)
        record = scene.store.catalog.run("run")
        assert record is not None
        assert (record.kind, record.selection, record.executor) == ("backfill", "*", "sync")
        assert (record.priority, record.max_concurrency, record.created_at) == (8, 7, scene.now)
        assert (record.state, record.finished_at, record.total, record.done) == (State.RUNNING, None, 4, 0)
        assert record.counts == {State.PENDING: 3, State.WAITING: 1}
        scene.end(scene.claim(placed[0].id))
        scene.end(scene.claim(placed[1].id), failed())
        scene.end(scene.claim(placed[3].id), skipped())
        record = scene.store.catalog.run("run")
        assert record is not None
        assert record.counts == {
            State.COMPLETED: 1,
            State.FAILED: 1,
            State.UPSTREAM_FAILED: 1,
            State.SKIPPED: 1,
        }
        assert (record.state, record.total, record.done) == (State.FAILED, 4, 4)
        assert record.finished_at is not None

    def test_a_run_counts_joined_steps(self, scene: Scene) -> None:
        """What was asked for is what is counted, whoever runs it; a run without own steps ends too."""
        a = scene.one("a", run_id="owner")
        scene.one("a", run_id="guest")
        record = scene.store.catalog.run("guest")
        assert record is not None
        assert (record.state, record.counts) == (State.RUNNING, {State.PENDING: 1})
        assert [step.id for step in scene.store.catalog.steps("guest")] == [a.id]
        scene.end(scene.claim(a.id))
        record = scene.store.catalog.run("guest")
        assert record is not None
        assert (record.state, record.counts) == (State.COMPLETED, {State.COMPLETED: 1})
        assert record.finished_at is not None

    def test_the_newest_runs_come_first(self, scene: Scene) -> None:
        """And only as many as asked for."""
        for number in range(5):
            scene.one("a", f"i:{number}", run_id=f"run-{number}")
        ids = [one.id for one in scene.store.catalog.runs(limit=3)]
        assert ids == ["run-4", "run-3", "run-2"]

    def test_steps_come_in_the_order_of_planning(self, scene: Scene) -> None:
        """All, or those in one state, at most `limit`."""
        placed = scene.open("run", [NewStep(name, "") for name in "dbca"])
        catalog = scene.store.catalog
        assert [step.asset for step in catalog.steps("run")] == ["d", "b", "c", "a"]
        scene.end(scene.claim(placed[1].id))
        assert [step.asset for step in catalog.steps("run", state=State.PENDING)] == ["d", "c", "a"]
        assert [step.asset for step in catalog.steps("run", state=State.COMPLETED)] == ["b"]
        assert [step.asset for step in catalog.steps("run", limit=2)] == ["d", "b"]

    def test_history_is_newest_first(self, scene: Scene) -> None:
        """Of an asset, of one partition, in one state."""
        first = scene.make("a", "s:x", run_id="1")
        second = scene.make("a", "s:y", run_id="2")
        third = scene.make("a", "s:x", run_id="3")
        broken = scene.one("a", "s:x", run_id="4", forced=True)
        scene.end(scene.claim(broken.id), failed())
        scene.make("b", "s:x", run_id="5")
        catalog = scene.store.catalog
        assert [one.id for one in catalog.history("a", None)] == [broken.id, third, second, first]
        assert [one.id for one in catalog.history("a", "s:x")] == [broken.id, third, first]
        assert [one.id for one in catalog.history("a", "s:x", state=State.COMPLETED)] == [third, first]
        assert [one.id for one in catalog.history("a", None, limit=2)] == [broken.id, third]
        assert catalog.history("a", "") == []

    def test_resolve_prefers_the_own_run(self, scene: Scene) -> None:
        """Inside a run its own result wins, even when another run committed later."""
        own, child = scene.open("mine", [NewStep("a", ""), NewStep("b", "", inputs=(0,))])
        scene.end(scene.claim(own.id))
        newer = scene.make("a", run_id="other")
        mine, theirs = scene.store.catalog.resolve([("mine", "a", ""), ("third", "a", "")])
        assert mine is not None
        assert theirs is not None
        assert (mine.step_id, theirs.step_id) == (own.id, newer)
        assert mine.stored == scene.step(own.id).stored
        assert scene.state(child.id) is State.PENDING

    def test_resolve_follows_reuse(self, scene: Scene) -> None:
        """A reused step names the step whose output serves, also after a newer one was committed."""
        made = scene.make("a", run_id="1")
        scene.open("run", [NewStep("a", "", reuse=made)])
        scene.make("a", run_id="2")
        (found,) = scene.store.catalog.resolve([("run", "a", "")])
        assert found is not None
        assert found.step_id == made
        assert found.stored == scene.step(made).stored

    def test_resolve_reads_only_what_is_committed(self, scene: Scene) -> None:
        """A step under way, or failed, is no version; answers come in the order of the questions."""
        made = scene.make("a", "s:1", run_id="1")
        scene.claim(scene.one("a", "s:2", run_id="2").id)
        broken = scene.one("a", "s:3", run_id="3")
        scene.end(scene.claim(broken.id), failed())
        requested = [("2", "a", "s:2"), ("x", "a", "s:1"), ("3", "a", "s:3"), ("x", "a", "s:1")]
        found = [one.step_id if one else None for one in scene.store.catalog.resolve(requested)]
        assert found == [None, made, None, made]

    def test_lineage_names_exact_steps(self, scene: Scene) -> None:
        """A reader of an old version stays a reader of the old version."""
        old = scene.make("a", run_id="1")
        first = scene.make("b", run_id="2", inputs=[old])
        new = scene.make("a", run_id="3")
        second = scene.make("b", run_id="4", inputs=[new])
        catalog = scene.store.catalog
        assert {key: tuple(read) for key, read in catalog.readers([old, new]).items()} == {
            old: (first,),
            new: (second,),
        }
        inputs = catalog.inputs([first, second])
        assert [one.step_id for one in inputs[first]] == [old]
        assert [one.step_id for one in inputs[second]] == [new]

    def test_when_the_version_in_use_was_started(self, scene: Scene) -> None:
        """A version is distinguished from one that was started earlier; the run's own result is marked as such."""
        made = scene.make("a", run_id="one")
        started = scene.step(made).started_at
        catalog = scene.store.catalog
        assert catalog.started([("a", ""), ("nobody", "")]) == {("a", ""): started}
        assert catalog.started([]) == {}
        (own,), (other,) = catalog.resolve([("one", "a", "")]), catalog.resolve([("other", "a", "")])
        assert own is not None
        assert other is not None
        assert (own.started_at, own.own) == (started, True)
        assert (other.started_at, other.own) == (started, False)
        committed = scene.store.target_statuses.status([("a", "")])["a", ""].committed
        assert committed is not None
        assert committed.started_at == started

    def test_what_is_invalidated_is_not_current(self, scene: Scene) -> None:
        """An invalidated version is out of use at once; its record stays."""
        made = scene.make("a", run_id="one")
        assert scene.store.ledger.invalidate([("a", ""), ("nobody", "")]) == 1
        assert scene.store.catalog.current([("a", "")]) == {}
        assert scene.store.catalog.resolve([("other", "a", "")]) == [None]
        assert scene.state(made) is State.COMPLETED
        assert scene.store.ledger.invalidate([("a", "")]) == 0

    def test_failed_attempts_are_no_readers(self, scene: Scene) -> None:
        """Only what was published counts as made from something."""
        read = scene.make("a", run_id="1")
        broken = scene.one("b", run_id="2")
        scene.end(scene.claim(broken.id), failed(), inputs=[read])
        assert not scene.store.catalog.readers([read]).get(read)

    def test_wait_is_over_at_once(self, scene: Scene) -> None:
        """When the steps, and the run, are over."""
        made = scene.make("a", run_id="run")
        assert scene.store.catalog.wait([made], timeout_seconds=0)
        assert scene.store.catalog.wait([], run_id="run", timeout_seconds=0)
        assert scene.store.catalog.wait([made], run_id="run", timeout_seconds=30)

    def test_wait_gives_up(self, scene: Scene) -> None:
        """False when the time is up; no sooner."""
        step = scene.one()
        started = time.monotonic()
        assert not scene.store.catalog.wait([step.id], timeout_seconds=0.05)
        assert not scene.store.catalog.wait([], run_id="run", timeout_seconds=0.05)
        assert time.monotonic() - started >= 0.09
        assert not scene.store.catalog.wait([step.id], timeout_seconds=0)

    def test_wait_wakes_up(self, scene: Scene) -> None:
        """Threads that wait for a step or a run learn of the end long before their time is up."""
        step = scene.open("run", [NewStep("a", "")], watched=True)[0]
        claim = scene.claim(step.id)
        answers: list[bool] = []
        waiting = [
            threading.Thread(
                target=lambda: answers.append(scene.store.catalog.wait([step.id], timeout_seconds=30))
            ),
            threading.Thread(
                target=lambda: answers.append(scene.store.catalog.wait([], run_id="run", timeout_seconds=30))
            ),
        ]
        started = time.monotonic()
        for thread in waiting:
            thread.start()
        scene.end(claim)
        for thread in waiting:
            thread.join(30)
        assert answers == [True, True]
        assert time.monotonic() - started < 20

    def test_waiting_ends_with_a_cancel(self, scene: Scene) -> None:
        """A cancel is an end too."""
        step = scene.open("run", [NewStep("a", "")], watched=True)[0]
        answers: list[bool] = []
        thread = threading.Thread(
            target=lambda: answers.append(scene.store.catalog.wait([step.id], timeout_seconds=30))
        )
        thread.start()
        scene.store.ledger.request_cancel(step.id)
        thread.join(30)
        assert answers == [True]

    def test_an_asset_is_forgotten_as_a_whole(self, scene: Scene) -> None:
        """Its steps, its current versions and their values; what read it stays."""
        first, again = scene.make("a", run_id="one"), scene.make("a", run_id="two")
        reader = scene.one("b", run_id="three")
        scene.end(scene.claim(reader.id), inputs=[again])
        retention = scene.store.retention
        counts, unfinished = retention.recorded_of("a")
        assert (counts.steps, counts.values, unfinished) == (2, 2, 0)
        discarded: list[StoredOutput] = []
        assert retention.prune_asset("a", discard=discarded.extend) == counts
        assert len(discarded) == 2
        assert [scene.store.catalog.step(one) for one in (first, again)] == [None, None]
        assert scene.store.catalog.current([("a", ""), ("b", "")]) == {("b", ""): reader.id}
        assert scene.store.catalog.history("a", None) == []
        assert retention.recorded_of("a")[0].steps == 0


def found(scene: Scene, claim: Attempt, check: str = "not_empty", **fields: Any) -> CheckRecord:
    """Return the result of a check of an attempt; it passed unless `fields` say otherwise."""
    settings: dict[str, Any] = {
        "check": check,
        "asset": claim.asset,
        "partition_key": claim.partition_key,
        "step_id": claim.step_id,
        "attempt": claim.attempt,
        "token": claim.token,
        "passed": True,
        "started_at": scene.later(1),
    }
    return CheckRecord(**settings | fields)


def end(
    scene: Scene,
    claim: Attempt,
    *checks: CheckRecord,
    outcome: AttemptOutcome | None = None,
    retry: float | None = None,
) -> CommitResult:
    """Commit an attempt with the results of its checks."""
    completion = AttemptResult(claim, outcome or succeeded(claim), (), scene.later(1), retry, checks)
    return scene.store.ledger.commit([completion])[0]


class CheckTests(StoreCase):
    """What `AttemptResult.checks` and `CheckStore` mean."""

    def test_results_come_back_as_they_were(self, scene: Scene) -> None:
        """Every field of a result survives, for a success as for a failure."""
        claim = scene.claim(scene.one("a", "s:x").id)
        rich = found(
            scene,
            claim,
            passed=False,
            severity=Severity.WARNING,
            blocking=True,
            description="two\nlines \u00e9",
            error="Traceback ...",
            metadata={"rows": 3, "share": 0.25, "head": ["a", None, True], "of": {"x": "NaN"}},
            took_seconds=0.125,
        )
        plain = found(scene, claim, "plain")
        end(scene, claim, rich, plain)
        assert scene.store.checks.results("a") == [plain, rich]
        assert scene.store.checks.of_steps([claim.step_id]) == {claim.step_id: (rich, plain)}

    def test_failed_attempts_keep_their_results(self, scene: Scene) -> None:
        """What kept a value from being published can be read; the previous version is current."""
        good = scene.make("a", run_id="one")
        claim = scene.claim(scene.one("a", run_id="two", forced=True, max_attempts=2).id)
        first = found(scene, claim, passed=False, blocking=True)
        assert end(scene, claim, first, outcome=failed("refused"), retry=0.001).state is State.RETRYING
        again = scene.claim(claim.step_id, now=scene.later(60))
        second = found(scene, again, passed=False, blocking=True)
        assert end(scene, again, second, outcome=failed("refused again")).state is State.FAILED
        assert scene.store.checks.results("a") == [second, first]
        assert [one.attempt for one in scene.store.checks.results("a")] == [2, 1]
        assert scene.store.catalog.current([("a", "")]) == {("a", ""): good}

    def test_superseded_attempts_leave_nothing(self, scene: Scene) -> None:
        """Results of an attempt that was replaced are not recorded, also beside those of the newer one."""
        step = scene.one("a", max_attempts=3)
        stale = scene.claim(step.id)
        scene.store.ledger.release([stale])
        fresh = scene.claim(step.id)
        assert not end(scene, stale, found(scene, stale, passed=False)).accepted
        assert scene.store.checks.results("a") == []
        valid = found(scene, fresh)
        late = AttemptResult(
            stale, succeeded(stale), (), scene.later(1), None, (found(scene, stale, passed=False),)
        )
        done = AttemptResult(fresh, succeeded(fresh), (), scene.later(1), None, (valid,))
        scene.store.ledger.commit([late, done])
        assert scene.store.checks.results("a") == [valid]
        scene.store.ledger.commit([done])  # the answer to the first try was lost
        assert scene.store.checks.results("a") == [valid]

    def test_an_attempt_that_is_released_leaves_nothing(self, scene: Scene) -> None:
        """It is as if it had not been."""
        claim = scene.claim(scene.one("a").id)
        end(scene, claim, found(scene, claim), outcome=snoozed(5))
        assert scene.store.checks.results("a") == []

    def test_results_are_filtered_and_the_newest_come_first(self, scene: Scene) -> None:
        """By asset, partition, check and failure; the limit keeps the newest."""
        for number, (asset, key) in enumerate([("a", "s:x"), ("a", "s:y"), ("b", "s:x"), ("a", "s:x")]):
            claim = scene.claim(scene.one(asset, key, run_id=f"run {number}", forced=True).id)
            checks = [found(scene, claim, "one", passed=number != 1), found(scene, claim, "two")]
            end(scene, claim, *checks)
        results = scene.store.checks.results
        assert [(one.partition_key, one.check) for one in results("a", limit=3)] == [
            ("s:x", "two"),
            ("s:x", "one"),
            ("s:y", "two"),
        ]
        assert [one.partition_key for one in results("a", failed=True)] == ["s:y"]
        assert len(results("a", partition="s:x", check="one")) == 2
        assert results("a", partition="s:z") == results("c") == results("a", check="three") == []

    def test_the_latest_of_each_check(self, scene: Scene) -> None:
        """One row per asset, partition and check; a failure that was overcome is not the latest."""
        for number, (asset, key, passed) in enumerate([("b", "", True), ("a", "s:x", False), ("a", "s:x", True)]):
            claim = scene.claim(scene.one(asset, key, run_id=f"run {number}", forced=True).id)
            end(scene, claim, found(scene, claim, "two", passed=passed), found(scene, claim, "one"))
        latest = scene.store.checks.latest
        assert [(one.asset, one.check, one.passed) for one in latest()] == [
            ("a", "one", True),
            ("a", "two", True),
            ("b", "one", True),
            ("b", "two", True),
        ]
        assert [one.asset for one in latest("b")] == ["b", "b"]
        assert len(latest("a", partition="s:x", limit=1)) == 1
        assert latest(failed=True) == latest("a", partition="s:y") == []
        claim = scene.claim(scene.one("b", run_id="last", forced=True).id)
        end(scene, claim, found(scene, claim, "two", passed=False), outcome=failed())
        assert [(one.asset, one.check) for one in latest(failed=True)] == [("b", "two")]

    def test_a_committed_version_is_checked_again(self, scene: Scene) -> None:
        """The newer result of a check takes the place of the older one of the same step."""
        claim = scene.claim(scene.one("a").id)
        end(scene, claim, found(scene, claim, "one"), found(scene, claim, "two"))
        again = found(scene, claim, "one", passed=False, token=None, description="looked again")
        assert scene.store.checks.record([again]) == 1
        known = replace(again, token=claim.token)
        assert scene.store.checks.results("a")[0] == known
        (other,) = scene.store.checks.results("a", check="two")
        assert scene.store.checks.of_steps([claim.step_id, 10**9]) == {claim.step_id: (known, other), 10**9: ()}
        assert scene.store.checks.record([]) == 0
        assert scene.store.checks.record([replace(again, step_id=10**9)]) == 0

    @pytest.mark.parametrize("text", HOSTILE_TEXTS, ids=lambda text: ascii(text)[:24])
    def test_texts_are_kept_as_they_are(self, scene: Scene, text: str) -> None:
        """Names, descriptions and facts are data, whatever they hold."""
        claim = scene.claim(scene.one(text, text).id)
        end(scene, claim, found(scene, claim, text, description=text, error=text, metadata={text: text}))
        (result,) = scene.store.checks.results(text, partition=text, check=text)
        assert (result.check, result.description, result.error) == (text, text, text)
        assert result.metadata == {text: text}
        assert scene.store.checks.latest(text, partition=text) == [result]


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
            mine = random.Random(seed).sample(requested, len(requested))
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
        chance = random.Random(7)
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


class TargetStatusConformance(StoreCase):
    """Tests of `Store.target_statuses`; make a subclass whose name starts with `Test`.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> class TestMyStore(TargetStatusConformance):
        ...     def make_store(self):
        ...         return MemoryStore()
    """

    def test_nothing_is_known_of_what_nobody_asked_for(self, scene: Scene) -> None:
        """Unknown targets, steps and assets are left out."""
        target_statuses = scene.store.target_statuses
        assert (target_statuses.status([]), target_statuses.reads([]), target_statuses.active([])) == ({}, {}, {})
        assert target_statuses.status([("nope", ""), ("nope", "s:x")]) == {}
        assert (target_statuses.reads([987654321]), target_statuses.active(["nope"])) == ({}, {})

    def test_the_version_in_use(self, scene: Scene) -> None:
        """The newest committed step, its hash, its code, its time."""
        first = _make(scene, "a", "s:x", content="one", code="1")
        again = _make(scene, "a", "s:x", content="two", code="2")
        found = _of(scene, "a", "s:x")
        assert found.committed is not None
        assert (found.committed.data, found.committed.code_version) == (DataVersion(again, "two"), "2")
        assert found.newest is not None
        assert (found.newest.step_id, found.newest.state, found.active) == (again, State.COMPLETED, None)
        assert found.without_result is None
        assert found.newest.requested_at <= found.committed.committed_at
        assert first < again

    def test_what_is_active(self, scene: Scene) -> None:
        """A step that is not over, beside the version in use; a reused step is not in the way."""
        made = _make(scene, "a", "", content="one")
        step = scene.one("a", "", run_id="forced", forced=True)
        reused = scene.open("lazy", [NewStep("a", "", reuse=made)])
        found = _of(scene, "a")
        assert scene.state(reused[0].id) is State.REUSED
        assert found.active is not None
        assert (found.active.step_id, found.active.state, found.active.run_id) == (
            step.id,
            State.PENDING,
            "forced",
        )
        scene.claim(step.id)
        running = _of(scene, "a").active
        assert running is not None
        assert (running.state, running.started_at is not None) == (State.RUNNING, True)

    def test_what_ended_without_a_result(self, scene: Scene) -> None:
        """Failed, skipped or cancelled, with what it had read; the version before stays in use."""
        old, new = _make(scene, "up", "", content="1"), _make(scene, "up", "", content="2")
        made = _make(scene, "a", "", content="one", inputs=[old])
        outcomes: list[AttemptOutcome] = [failed(), skipped(), Stopped("asked to")]
        for number, outcome in enumerate(outcomes):
            step = _end(scene, f"try-{number}", "a", outcome, inputs=[new])
            found = _of(scene, "a")
            assert found.committed is not None
            assert found.committed.data.step_id == made
            assert found.without_result is not None
            assert found.without_result.step_id == step
            assert found.without_result.finished_at is not None
            reads = scene.store.target_statuses.reads([made, step])
            assert reads == {
                made: {("up", ""): DataVersion(old, "1")},
                step: {("up", ""): DataVersion(new, "2")},
            }
        assert tuple(scene.store.catalog.readers([new]).get(new, ())) == (), "a failed try is no reader"

    def test_a_try_between_is_not_over(self, scene: Scene) -> None:
        """An attempt that is followed by another one leaves the step active."""
        step = scene.one("a", "", run_id="retried", max_attempts=2)
        scene.end(scene.claim(step.id), failed(), retry=60.0)
        found = _of(scene, "a")
        assert found.without_result is None
        assert found.active is not None
        assert found.active.state is State.RETRYING

    def test_cancelled_before_it_started(self, scene: Scene) -> None:
        """It ended without a result and had read nothing."""
        step = scene.one("a", "", run_id="cancelled")
        scene.store.ledger.request_cancel(step.id)
        found = _of(scene, "a").without_result
        assert found is not None
        assert (found.step_id, found.state, found.started_at) == (step.id, State.CANCELLED, None)
        assert scene.store.target_statuses.reads([step.id]) == {}

    def test_what_is_invalidated_is_not_in_use(self, scene: Scene) -> None:
        """The newest step stays known."""
        made = _make(scene, "a", "", content="one")
        scene.store.ledger.invalidate([("a", "")])
        found = _of(scene, "a")
        assert found.committed is None
        assert found.newest is not None
        assert (found.newest.step_id, found.newest.is_without_result) == (made, False)

    def test_many_targets_at_once(self, scene: Scene) -> None:
        """Each answer belongs to its own target, whatever the names are."""
        made: dict[Target, int] = {}
        for number, text in enumerate(HOSTILE_TEXTS):
            for target in ((text, ""), ("a", text)):
                made[target] = _make(scene, *target, content=f"{number}{target == ('a', text)}")
        found = scene.store.target_statuses.status([*made, ("nobody", "")])
        assert {t: one.committed.data.step_id for t, one in found.items() if one.committed} == made

    def test_active_steps_are_counted_by_asset(self, scene: Scene) -> None:
        """Of all partitions, in every state that is not over."""
        steps = scene.open("run", [NewStep("a", f"i:{number}") for number in range(3)] + [NewStep("b", "")])
        scene.end(scene.claim(steps[0].id))
        scene.claim(steps[1].id)
        assert scene.store.target_statuses.active(["a", "b", "c"]) == {"a": 2, "b": 1}
        assert scene.store.target_statuses.active(["b"]) == {"b": 1}

    def test_a_conclusion_wakes_others(self, scene: Scene) -> None:
        """What is due later is due now; what waits for a person goes on waiting; unknown ones do not matter."""
        automations = scene.store.automations
        first, later, never, nobody = (AutomationId(AutomationKind.CONDITION, name) for name in "abcd")
        automations.declare([first, later, never])
        far = datetime.now(UTC) + timedelta(days=1)
        for one in automations.take([later, never], lease_seconds=60, limit=2):
            automations.conclude(one, Conclusion(cursor=None, due_at=far if one.record.id == later else None))
        assert automations.take([later, never], lease_seconds=60, limit=2) == []
        (taken,) = automations.take([first], lease_seconds=60)
        automations.conclude(taken, Conclusion(cursor=None, due_at=far, wakes=[later, never, nobody]))
        woken = automations.take([first, later, never], lease_seconds=60, limit=3)
        assert [one.record.id for one in woken] == [later]


def _of(scene: Scene, asset: str, partition: str = "") -> TargetStatus:
    return scene.store.target_statuses.status([(asset, partition)])[asset, partition]


def _make(
    scene: Scene, asset: str, partition: str, *, content: str, code: str | None = None, inputs: Sequence[int] = ()
) -> int:
    """Commit a version with this content hash; return its step."""
    run_id = f"{asset[:40]}-{partition[:40]}-{content}"
    placed = scene.one(asset, partition, run_id=run_id, forced=True, code_version=code)
    stored = StoredOutput("memory", f"{placed.id}-1", content_hash=content)
    scene.end(scene.claim(placed.id), Succeeded(stored, None), inputs=inputs)
    return placed.id


def _end(scene: Scene, run_id: str, asset: str, outcome: AttemptOutcome, *, inputs: Sequence[int]) -> int:
    placed = scene.one(asset, "", run_id=run_id, forced=True)
    claim = scene.claim(placed.id)
    if isinstance(outcome, Stopped):
        scene.store.ledger.request_cancel(placed.id)
    scene.end(claim, outcome, inputs=inputs)
    return placed.id
