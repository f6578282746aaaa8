from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone import (
    Condition,
    all_inputs_ready,
    any_input_in_progress,
    any_input_updated,
    code_changed,
    eager,
    in_progress,
    last_try_failed,
    newest_partition,
    on_missing,
    retry_failed,
    when,
    when_stale,
)
from flowstone.core.automation.condition import Paced, Verdict, paced
from flowstone.core.automation.facts import (
    CommittedVersion,
    DataVersion,
    InputFacts,
    NewestStep,
    Reads,
    Restored,
    TargetFacts,
    TargetStatus,
)
from flowstone.core.state import State
from flowstone.errors import DefinitionError

NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def step(
    step_id: int, state: State = State.COMPLETED, *, code: str | None = None, ago: timedelta = HOUR
) -> NewestStep:
    at = NOW - ago
    return NewestStep(step_id, state, code, at, at, at if state.is_terminal else None, "run")


def version(
    step_id: int, content: str | None = None, *, code: str | None = None, ago: timedelta = HOUR
) -> TargetStatus:
    committed = CommittedVersion(DataVersion(step_id, content), NOW - ago, code)
    return TargetStatus(committed, step(step_id, code=code, ago=ago))


def target(
    status: TargetStatus | None = None,
    *inputs: TargetStatus,
    read: Reads | None = None,
    tried: Reads | None = None,
    code: str | None = None,
) -> TargetFacts:
    """Facts of `b`, which reads `a0`, `a1`, ..."""
    return TargetFacts(
        asset="b",
        partition_key="",
        status=status or TargetStatus(),
        inputs=tuple(InputFacts((f"a{number}", ""), one) for number, one in enumerate(inputs)),
        read=read or {},
        tried=tried or {},
        declared_code=code,
    )


def requested(condition: Condition, facts: TargetFacts, now: datetime = NOW) -> bool:
    return condition.evaluate(facts, now).requested


# --- staleness --------------------------------------------------------------------------------------------


def test_the_same_bytes_make_nothing_stale() -> None:
    facts = target(version(2, "x"), version(3, "same"), read={("a0", ""): DataVersion(1, "same")})
    assert not requested(eager(), facts)
    assert not requested(when_stale(), facts)
    assert facts.staleness == []


def test_other_bytes_make_it_stale_and_say_which() -> None:
    facts = target(version(2, "x"), version(3, "cd" * 32), read={("a0", ""): DataVersion(1, "ab" * 32)})
    assert requested(eager(), facts)
    assert requested(when_stale(), facts)
    (reason,) = facts.staleness
    assert reason.startswith("input a0 changed: data version abababab → cdcdcdcd, committed at 2024-03-01 11:00")
    assert eager().evaluate(facts, NOW).reason.startswith(reason)


def test_without_a_hash_every_new_version_counts() -> None:
    read = {("a0", ""): DataVersion(1)}
    assert not requested(eager(), target(version(2), version(1), read=read))
    facts = target(version(2), version(3, "known now"), read=read)
    assert requested(eager(), facts)
    assert "step 1 → step 3" in facts.staleness[0]


def test_other_inputs_than_it_read_are_a_change() -> None:
    new = target(version(2), version(1, "x"), version(3, "y"), read={("a0", ""): DataVersion(1, "x")})
    assert [text.split(",")[0] for text in new.changes] == ["input a1 is new: it was not read before"]
    less = target(
        version(2), version(1, "x"), read={("a0", ""): DataVersion(1, "x"), ("gone", "s:k"): DataVersion(9)}
    )
    assert less.changes == ["input gone [k] was read and no longer is"]


def test_code_versions() -> None:
    assert requested(code_changed(), target(version(1, code="1"), code="2"))
    assert target(version(1, code="1"), code="2").staleness == ["code version 1 → 2"]
    assert target(version(1), code="2").staleness == ["code version undeclared → 2"]
    assert not requested(code_changed(), target(version(1, code="1"), code="1"))
    assert not requested(code_changed(), target(version(1, code="1"))), "declares none: nothing to compare"
    assert not requested(code_changed(), target(code="1")), "nothing is committed"
    assert not requested(eager(), target(version(1, code="1"), code="2")), "eager is about data"


def test_an_invalidated_input_is_said_and_waited_for() -> None:
    facts = target(version(2, "x"), TargetStatus(None, step(1)), read={("a0", ""): DataVersion(1, "y")})
    assert facts.staleness == ["input a0 was invalidated"]
    decision = (eager() | when_stale() | on_missing()).evaluate(facts, NOW)
    assert not decision.requested
    assert "input a0 is missing" in decision.reason


def test_an_invalidated_target_is_missing() -> None:
    assert requested(eager(), target(TargetStatus(None, step(2)), version(1)))
    assert requested(on_missing(), target(TargetStatus(None, step(2)), version(1)))
    assert requested(when_stale(), target())


def test_age_makes_stale() -> None:
    lagging = when_stale(max_lag=timedelta(hours=6))
    assert not requested(lagging, target(version(1, ago=timedelta(hours=6))))
    decision = lagging.evaluate(target(version(1, ago=timedelta(hours=7))), NOW)
    assert decision.requested
    assert decision.reason == "it was committed at 2024-03-01 05:00+00:00, more than 6:00:00 ago"


def test_an_optional_input_that_was_skipped_counts_as_none() -> None:
    skipped = TargetStatus(version(1, "old").committed, step(5, State.SKIPPED))
    facts = replace(target(version(2, "x")), inputs=(InputFacts(("a0", ""), skipped, optional=True),))
    assert facts.unready == []
    assert facts.changes == []
    required = replace(target(), inputs=(InputFacts(("a0", ""), TargetStatus(None, step(5, State.SKIPPED))),))
    assert required.unready == ["input a0 is missing"]


# --- what always holds ------------------------------------------------------------------------------------

ALWAYS = when("always", lambda facts, now: True)


def test_nothing_in_progress_is_asked_for() -> None:
    for state in (State.PENDING, State.RUNNING, State.RETRYING, State.WAITING, State.AWAITING_APPROVAL):
        decision = ALWAYS.evaluate(target(TargetStatus(None, step(1, state))), NOW)
        assert not decision.requested
        assert decision.reason == f"it is {state.value}"


def test_nothing_is_asked_for_whose_inputs_are_not_ready() -> None:
    assert not requested(ALWAYS, target(None, version(1), TargetStatus()))
    assert requested(ALWAYS, target(None, version(1), version(2)))
    assert not requested(ALWAYS, replace(target(), problem="its inputs cannot be determined: boom"))


@pytest.mark.parametrize("state", [State.FAILED, State.SKIPPED, State.CANCELLED, State.UPSTREAM_FAILED])
def test_a_try_without_result_is_not_repeated_at_the_same_state(state: State) -> None:
    read = {("a0", ""): DataVersion(1, "x")}
    ended = TargetStatus(None, step(9, state, code="1"))
    decision = ALWAYS.evaluate(target(ended, version(4, "x"), tried=read, code="1"), NOW)
    assert not decision.requested
    assert decision.reason == f"it ended as {state.value} and neither inputs nor code changed since"
    assert requested(ALWAYS, target(ended, version(4, "other"), tried=read, code="1"))
    assert requested(ALWAYS, target(ended, version(4, "x"), tried=read, code="2"))


def test_a_try_that_read_nothing_is_repeated_after_an_input_was_committed() -> None:
    ended = TargetStatus(None, step(9, State.FAILED, ago=HOUR))
    assert not requested(ALWAYS, target(ended, version(1, ago=2 * HOUR)))
    assert requested(ALWAYS, target(ended, version(1, ago=HOUR / 2)))
    assert not requested(ALWAYS, target(ended)), "nothing that could change but its code"


def test_retry_failed_tries_again_after_a_while() -> None:
    condition = eager() | retry_failed(after=timedelta(minutes=30))
    ended = TargetStatus(None, step(9, State.FAILED, ago=timedelta(minutes=29)))
    assert not requested(condition, target(ended))
    assert requested(condition, target(ended), NOW + timedelta(minutes=1))
    assert not requested(eager() & last_try_failed(), target(ended), NOW + HOUR)
    assert not requested(retry_failed(after=HOUR), target(version(1)))
    assert not requested(
        retry_failed(after=HOUR / 2) & eager(), target(version(1), version(3), read={("a0", ""): DataVersion(3)})
    )


# --- the algebra ------------------------------------------------------------------------------------------

LEAVES = (
    on_missing(),
    any_input_updated(),
    all_inputs_ready(),
    any_input_in_progress(),
    in_progress(),
    code_changed(),
    newest_partition(),
    last_try_failed(),
    eager(),
    when_stale(max_lag=HOUR),
    retry_failed(after=HOUR),
)
conditions = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        inner.map(Condition.__invert__),
    ),
    max_leaves=8,
)
hashes = st.sampled_from([None, "x", "y"])
lags = st.sampled_from([HOUR / 2, HOUR, 2 * HOUR])
moments = lags.map(lambda lag: NOW - lag)
versions = st.builds(DataVersion, st.integers(1, 4), hashes)
newest_steps = st.builds(
    step, st.integers(5, 9), st.sampled_from([State.RUNNING, State.FAILED, State.COMPLETED]), ago=lags
)
target_statuses = st.builds(
    TargetStatus,
    st.none()
    | st.builds(
        CommittedVersion,
        versions,
        lags.map(lambda lag: NOW - lag),
        st.sampled_from([None, "1"]),
        st.none(),
        st.none()
        | st.builds(Restored, lags.map(lambda lag: NOW - lag), st.just("ann"), st.sampled_from([None, "1"])),
    ),
    st.none() | newest_steps,
)
reads = st.dictionaries(st.sampled_from([("a0", ""), ("a1", ""), ("z", "")]), versions, max_size=2)


@st.composite
def any_facts(draw: st.DrawFn) -> TargetFacts:
    inputs = draw(st.lists(target_statuses, max_size=2))
    code = draw(st.sampled_from([None, "1", "2"]))
    facts = target(draw(target_statuses), *inputs, read=draw(reads), tried=draw(reads), code=code)
    return replace(facts, is_newest=draw(st.booleans()))


def decided(condition: Condition, facts: TargetFacts) -> tuple[bool, bool]:
    return condition.judge(facts, NOW).holds, condition.evaluate(facts, NOW).because.parts[0].holds


@given(conditions, conditions, any_facts())
def test_de_morgan(a: Condition, b: Condition, facts: TargetFacts) -> None:
    assert decided(~(a & b), facts) == decided(~a | ~b, facts)
    assert decided(~(a | b), facts) == decided(~a & ~b, facts)
    assert decided(~~a, facts) == decided(a, facts)
    assert decided(a & b, facts) == decided(b & a, facts)
    assert decided((a | b) & a, facts) == decided(a, facts)


def holds(verdict: Verdict) -> bool:
    """Work the tree out again from its leaves."""
    if not verdict.parts:
        return verdict.holds
    parts = [holds(part) for part in verdict.parts]
    if verdict.text == "not":
        return not parts[0]
    return any(parts) if _is_any(verdict) else all(parts)


def _is_any(verdict: Verdict) -> bool:
    return verdict.text == "any of" or verdict.text.startswith("when_stale")


def leaves(verdict: Verdict) -> Iterator[Verdict]:
    yield from (leaf for part in verdict.parts for leaf in leaves(part)) if verdict.parts else [verdict]


@given(conditions, any_facts())
def test_the_explanation_agrees_with_the_answer(condition: Condition, facts: TargetFacts) -> None:
    decision = condition.evaluate(facts, NOW)
    assert decision.requested == holds(decision.because)
    lines = decision.explain()
    assert lines[0].startswith(f"b is {'' if decision.requested else 'not '}requested: ")
    assert len(lines) == 2 + sum(1 for _ in _nodes(decision.because)) - 1
    assert lines[1].strip().startswith("yes:" if decision.requested else "no:")
    texts = {leaf.text for leaf in leaves(decision.because)}
    assert set(decision.reason.split("; ")) <= texts
    assert decision.reason


def _nodes(verdict: Verdict) -> Iterator[Verdict]:
    yield verdict
    for part in verdict.parts:
        yield from _nodes(part)


@given(conditions, any_facts())
def test_guards_hold_whatever_the_condition(condition: Condition, facts: TargetFacts) -> None:
    if requested(condition, facts):
        assert facts.status.active is None
        assert not facts.unready


def test_conditions_are_written_as_they_are_said() -> None:
    condition = (eager() | code_changed()) & ~in_progress() & ~(on_missing() | newest_partition())
    assert repr(condition) == "(eager() | code_changed()) & ~in_progress() & ~(on_missing() | newest_partition())"


def test_and_or_not_of_python_are_refused() -> None:
    with pytest.raises(DefinitionError, match="neither true nor false"):
        bool(eager())
    with pytest.raises(DefinitionError, match="cannot be combined"):
        eager() & True  # type: ignore[operator]
    with pytest.raises(DefinitionError, match="Say at_most"):
        eager() | on_missing().at_most(3)  # type: ignore[operator]


def test_limits() -> None:
    assert paced(eager()).requests == 1000
    limited = eager().at_most(3, active=7)
    assert (limited.requests, limited.active, paced(limited)) == (3, 7, limited)
    for requests in (0, -1, True, 1.5):
        with pytest.raises(DefinitionError, match="at least 1"):
            Paced(eager(), requests)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [timedelta(0), timedelta(-1), 60, "1h"])
def test_durations_are_checked(value: timedelta) -> None:
    for make in (when_stale, retry_failed):
        with pytest.raises(DefinitionError, match="positive timedelta"):
            make(value)


def test_a_decision_as_json() -> None:
    document = eager().evaluate(target(), NOW).to_json()
    assert (document["asset"], document["partition"], document["requested"]) == ("b", None, True)
    because = document["because"]
    assert isinstance(because, dict)
    assert because["holds"] is True
