"""What attempts log: added in batches, read in order, trimmed, counted, forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from tests.stores.conformance.case import Scene, StoreCase

from flowstone.core.logs import LogBatch, LogCount, Trim


def batch(step: int, line: int, *texts: str, attempt: int = 1, token: int = 1, run: str = "run") -> LogBatch:
    body = "\n".join(f"{1000 * (line + at)} I {text}" for at, text in enumerate(texts))
    return LogBatch(step, attempt, token, line, len(texts), run, body)


def texts(batches: Sequence[LogBatch]) -> list[str]:
    return [line.text for one in batches for line in one.read()]


class LogTests(StoreCase):
    """Logs of attempts."""

    def test_batches_are_read_in_the_order_of_their_lines(self, scene: Scene) -> None:
        logs = scene.store.logs
        logs.append([batch(7, 3, "c", "d"), batch(7, 1, "a", "b"), batch(8, 1, "other")], [])
        logs.append([batch(7, 5, "e", attempt=2, token=2)], [])
        assert texts(logs.read(7, 1)) == ["a", "b", "c", "d"]
        assert texts(logs.read(7, 1, after=(1, 2))) == ["c", "d"]
        assert texts(logs.read(7, 1, after=(1, 3))) == ["c", "d"]  # the batch that has a line behind it
        assert texts(logs.read(7, 1, after=(1, 4))) == []
        assert texts(logs.read(7, 1, limit=1)) == ["a", "b"]
        assert texts(logs.read(7, 1, newest=True, limit=1)) == ["c", "d"]
        assert logs.read(7, 3) == logs.read(9, 1) == []

    def test_a_batch_that_is_added_again_is_there_once(self, scene: Scene) -> None:
        logs = scene.store.logs
        logs.append([batch(7, 1, "a")], [])
        logs.append([batch(7, 1, "a"), batch(7, 2, "b")], [])
        assert texts(logs.read(7, 1)) == ["a", "b"]

    def test_an_attempt_that_was_released_and_claimed_again_keeps_both_parts(self, scene: Scene) -> None:
        logs = scene.store.logs
        logs.append([batch(7, 1, "again", token=9), batch(7, 1, "before", token=5)], [])
        assert texts(logs.read(7, 1)) == ["before", "again"]
        assert texts(logs.read(7, 1, after=(5, 1))) == ["again"]
        assert logs.counts([7]) == [LogCount(7, 1, 2, 2)]

    def test_what_lies_between_head_and_tail_goes(self, scene: Scene) -> None:
        logs = scene.store.logs
        logs.append([batch(7, line, str(line)) for line in range(1, 8)] + [batch(7, 3, "3", token=2)], [])
        logs.append([batch(7, 8, "8")], [Trim(7, 1, 1, 2, 6)])
        assert texts(logs.read(7, 1)) == ["1", "2", "6", "7", "8", "3"]
        assert logs.counts([7]) == [LogCount(7, 1, 8 + 3, 6)]

    def test_a_run_has_the_batches_of_its_steps_in_the_order_of_writing(self, scene: Scene) -> None:
        logs = scene.store.logs
        first, second = scene.one("a", run_id="run"), scene.one("b", "2024-01-05", run_id="other")
        logs.append([batch(first.id, 1, "a")], [])
        logs.append([batch(second.id, 1, "b", run="other")], [])
        logs.append([batch(first.id, 2, "c"), batch(first.id, 3, "d")], [])
        found = logs.of_run("run")
        assert texts([one.batch for one in found]) == ["a", "c", "d"]
        assert {(one.asset, one.partition_key) for one in found} == {("a", "")}
        assert texts([one.batch for one in logs.of_run("run", after=found[0].position)]) == ["c", "d"]
        assert logs.of_run("run", after=found[-1].position) == logs.of_run("nothing") == []
        assert texts([one.batch for one in logs.of_run("run", limit=2)]) == ["a", "c"]
        assert texts([one.batch for one in logs.of_run("run", newest=True, limit=2)]) == ["c", "d"]
        (one,) = logs.of_run("other")
        assert (one.asset, one.partition_key) == ("b", "2024-01-05")

    def test_counts_are_those_of_attempts_that_logged(self, scene: Scene) -> None:
        logs = scene.store.logs
        logs.append([batch(7, 1, "a", "b"), batch(7, 1, "c", attempt=2, token=2), batch(9, 1, "d")], [])
        assert logs.counts([7, 8]) == [LogCount(7, 1, 2, 2), LogCount(7, 2, 1, 1)]
        assert logs.counts([]) == []

    def test_steps_and_age_are_forgotten(self, scene: Scene) -> None:
        logs = scene.store.logs
        logs.append([batch(7, 1, "a"), batch(8, 1, "b")], [])
        assert logs.forget([7, 9]) == 1
        assert logs.prune(older_than_seconds=timedelta(days=1).total_seconds()) == 0
        assert texts(logs.read(8, 1)) == ["b"]
        assert logs.prune(older_than_seconds=-5.0) == 1
        assert logs.read(8, 1) == []

    def test_steps_that_are_pruned_take_their_logs_along(self, scene: Scene) -> None:
        old, new = scene.make("a", run_id="first"), scene.make("a", run_id="second")
        scene.store.logs.append([batch(old, 1, "a", run="first"), batch(new, 1, "b", run="second")], [])
        scene.store.retention.prune(older_than_seconds=-60.0, discard=lambda outputs: None)
        assert scene.step(new).id == new
        assert scene.store.logs.counts([old, new]) == [LogCount(new, 1, 1, 1)]
