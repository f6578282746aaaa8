from __future__ import annotations

import itertools

from flowstone.core.state import ACTIVE, SUCCESS, TERMINAL, State, can_move


def test_every_state_is_active_or_terminal_or_an_answer() -> None:
    assert ACTIVE | TERMINAL | {State.NOT_FOUND} == frozenset(State)
    assert not ACTIVE & TERMINAL
    assert SUCCESS < TERMINAL
    assert all(state.is_terminal == (state in TERMINAL) for state in State)
    assert all(state.is_success == (state in SUCCESS) for state in State)


def test_the_vocabulary_is_lower_case_and_stable() -> None:
    assert {state.value for state in State} == {
        "waiting",
        "scheduled",
        "pending",
        "running",
        "retrying",
        "awaiting_approval",
        "cancelling",
        "completed",
        "reused",
        "failed",
        "upstream_failed",
        "skipped",
        "cancelled",
        "not_found",
    }


def test_nothing_leaves_an_end() -> None:
    ends = [*TERMINAL, State.NOT_FOUND]
    assert not [(before, after) for before, after in itertools.product(ends, State) if can_move(before, after)]


def test_every_active_state_can_be_cancelled_and_reach_an_end() -> None:
    for state in ACTIVE:
        assert can_move(state, State.CANCELLED), state
        assert any(can_move(state, end) for end in TERMINAL)
        assert not can_move(state, State.NOT_FOUND)


def test_a_cancelling_step_never_starts_again() -> None:
    assert not any(can_move(State.CANCELLING, state) for state in ACTIVE)
    assert can_move(State.CANCELLING, State.COMPLETED)


def test_waiting_steps_do_not_complete_by_themselves() -> None:
    for state in (State.WAITING, State.SCHEDULED, State.PENDING, State.RETRYING):
        assert not can_move(state, State.COMPLETED)
