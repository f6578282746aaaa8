"""Whatever fails, breaks off or is found again: what is gathered are the successes, in order, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from flowstone import FlowStone, Gathered, RetryPolicy, asset, scatter
from flowstone.core.scatter import allowed_failures
from flowstone.core.state import State
from flowstone.engine import scatter as discovery
from flowstone.engine import scatter as gathered

_AT_ONCE = RetryPolicy(max_attempts=4, backoff_seconds=0.0, jitter=0.0)


class BrokenOffError(Exception):
    pass


@dataclass
class Story:
    """What happens while a scatter runs.

    Args:
        listings: what each attempt to discover finds, the last one completely.
        breaks: after how many items each attempt but the last one breaks off.
        failing: items that fail every time.
        flaky: items that fail the first time.
        maximum: the threshold.
        chunk: items in a transaction.
        page: items read at once.
        executor: where it runs.
    """

    listings: list[list[int]]
    breaks: list[int]
    failing: set[int]
    flaky: set[int]
    maximum: float
    chunk: int
    page: int
    executor: str
    attempts: int = 0
    tried: dict[int, int] = field(default_factory=dict)
    seen: list[tuple[list[int], int]] = field(default_factory=list)

    @property
    def final(self) -> list[int]:
        return self.listings[-1]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    pool = st.lists(st.integers(0, 40), unique=True, max_size=25)
    listings = draw(st.lists(pool, min_size=1, max_size=3))
    return Story(
        listings=listings,
        breaks=[draw(st.integers(0, 25)) for _ in listings[:-1]],
        failing=draw(st.sets(st.integers(0, 40), max_size=6)),
        flaky=draw(st.sets(st.integers(0, 40), max_size=6)),
        maximum=draw(st.one_of(st.integers(0, 8), st.floats(0, 1))),
        chunk=draw(st.integers(1, 7)),
        page=draw(st.integers(1, 7)),
        executor=draw(st.sampled_from(["sync", "async"])),
    )


def app(story: Story) -> FlowStone:
    @asset(retry=_AT_ONCE)
    def work(item: int) -> int:
        story.tried[item] = tries = story.tried.get(item, 0) + 1
        if item in story.failing or (item in story.flaky and tries == 1):
            raise ValueError(item)
        return -item

    @scatter(each=work, max_failures=story.maximum, max_concurrency=3, retry=_AT_ONCE)
    def found():
        attempt, story.attempts = story.attempts, story.attempts + 1
        listing = story.listings[min(attempt, len(story.listings) - 1)]
        for position, item in enumerate(listing):
            if attempt < len(story.breaks) and position == story.breaks[attempt]:
                raise BrokenOffError
            yield item
        if attempt < len(story.breaks):
            raise BrokenOffError

    @found.gather
    def gathering(results: Gathered) -> list[int]:
        values = [result.value for result in results]
        assert values == [result.value for result in results], "a second look is the same"
        assert [result.key for result in results] == [-value for value in values]
        assert len(results) == len(values) == results.total - results.failed
        story.seen.append((values, results.failed))
        assert len(list(results.failures)) == results.failed
        return values

    return FlowStone.for_testing([found])


@given(stories())
def test_what_is_gathered(story: Story) -> None:
    with (
        patch.object(discovery, "CHUNK", story.chunk),
        patch.object(gathered, "PAGE", story.page),
        app(story) as flow,
    ):
        how = {"executor": story.executor, "executor_opts": {"retry": True}}
        result = flow.materialize_all("found", **how)
        lost = [item for item in story.final if item in story.failing]
        allowed = allowed_failures(story.maximum, len(story.final))
        (run,) = [one for one in flow.runs.latest() if one.parent]
        assert run.state.is_terminal
        ever = {item for listing in story.listings for item in listing} & story.failing
        given_up = isinstance(story.maximum, int) and len(ever) > allowed
        # a number of failures that an earlier attempt found is final, though a later one does not find them again
        if len(lost) > allowed or (given_up and not result.ok):
            assert not result.ok
            assert story.seen == []
            return
        assert result.ok, result.errors
        expected = [-item for item in story.final if item not in story.failing]
        assert (result.value, story.seen) == (expected, [(expected, len(lost))])
        assert run.state in (State.COMPLETED, State.CANCELLED)  # items that were not found again are cancelled
        counts = flow.parts.store.scatters.counts(run.id)
        assert (counts.succeeded, counts.failed, counts.cancelled) == (len(expected), len(lost), 0)
        assert story.attempts == len(story.listings)


@given(stories())
def test_what_a_retry_runs(story: Story) -> None:
    with patch.object(discovery, "CHUNK", story.chunk), app(story) as flow:
        how = {"executor": story.executor, "executor_opts": {"retry": True}}
        result = flow.materialize_all("found", **how)
        if result.ok:
            return
        before, story.failing = dict(story.tried), set()
        discovered = story.attempts
        kept = {row.item for row in _with_value(flow)}
        again = flow.runs.retry(result.run_id, **how)
        assert again.ok, again.errors
        assert again.value == [-item for item in story.final]
        repeated = {item for item in story.tried if story.tried[item] > before.get(item, 0)}
        assert {str(item) for item in repeated} == {str(item) for item in story.final} - kept
        assert story.attempts == discovered


def _with_value(flow: FlowStone) -> list[gathered.ItemRow]:
    run = next(one for one in flow.runs.latest() if one.parent)
    return flow.parts.store.scatters.page(run.id, after=-1, limit=1000, states=gathered.WITH_VALUE)
