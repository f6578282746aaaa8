"""Conformance of stores: results of asset checks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flowstone.core.outcome import AttemptOutcome
from flowstone.core.state import State
from flowstone.core.step import CheckRecord, Claim, Committed, Completion, Severity
from flowstone.testing.store_case import HOSTILE_TEXTS, StoreCase
from flowstone.testing.store_scene import Scene, failed, snoozed, succeeded


def found(scene: Scene, claim: Claim, check: str = "not_empty", **fields: Any) -> CheckRecord:
    """Return the result of a check of an attempt; it passed unless `fields` say otherwise."""
    settings: dict[str, Any] = {
        "check": check,
        "asset": claim.asset,
        "partition": claim.partition,
        "step_id": claim.step_id,
        "attempt": claim.attempt,
        "token": claim.token,
        "passed": True,
        "started_at": scene.later(1),
    }
    return CheckRecord(**settings | fields)


def end(
    scene: Scene,
    claim: Claim,
    *checks: CheckRecord,
    outcome: AttemptOutcome | None = None,
    retry: float | None = None,
) -> Committed:
    """Commit an attempt with the results of its checks."""
    completion = Completion(claim, outcome or succeeded(claim), (), scene.later(1), retry, checks)
    return scene.store.ledger.commit([completion])[0]


class CheckTests(StoreCase):
    """What `Completion.checks` and `CheckStore` mean."""

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
        late = Completion(stale, succeeded(stale), (), scene.later(1), None, (found(scene, stale, passed=False),))
        done = Completion(fresh, succeeded(fresh), (), scene.later(1), None, (valid,))
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
        assert [(one.partition, one.check) for one in results("a", limit=3)] == [
            ("s:x", "two"),
            ("s:x", "one"),
            ("s:y", "two"),
        ]
        assert [one.partition for one in results("a", failed=True)] == ["s:y"]
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
