from __future__ import annotations

import asyncio

import pytest

from flowstone.core.clean import ERROR_LIMIT
from flowstone.core.outcome import Failed, Fatal, RetryLater, Skip, Skipped, Snoozed, Stopped
from flowstone.core.retry import RetryPolicy
from flowstone.engine.failures import failure, outcome_of, user_traceback
from flowstone.errors import SerializationError, StepCancelledError


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_outcomes_are_answers() -> None:
    assert outcome_of(RetryLater(5, "not \x00 yet"), None) == Snoozed(5, "not \\x00 yet")
    assert outcome_of(Skip("nothing"), None) == Skipped("nothing")
    assert isinstance(outcome_of(StepCancelledError("a"), None), Stopped)
    fatal = outcome_of(Fatal("over"), RetryPolicy())
    assert isinstance(fatal, Failed)
    assert (fatal.error, fatal.retryable) == ("Fatal: over", False)


@pytest.mark.parametrize(
    ("error", "by_default", "with_policy"),
    [
        (ValueError("x"), True, True),
        (OSError("x"), True, False),
        (SystemExit(1), False, False),
        (KeyboardInterrupt(), False, False),
        (asyncio.CancelledError(), False, False),
        (BaseExceptionGroup("g", [SystemExit(1)]), False, False),
        (ExceptionGroup("g", [ValueError()]), True, True),
        (SerializationError("p", path="$", type_name="t", remedy="r"), False, False),
    ],
)
def test_what_is_worth_another_attempt(error: BaseException, by_default: bool, with_policy: bool) -> None:
    assert failure(error, None).retryable is by_default
    assert failure(error, RetryPolicy(fatal_on=(OSError,))).retryable is with_policy


def test_the_record_names_type_message_and_line() -> None:
    error = raised(ValueError("the reason"))
    failed = failure(error, None)
    assert failed.error_type == "builtins.ValueError"
    assert failed.exception is error
    assert "raise error\nValueError: the reason" in failed.error
    assert __file__ in failed.error


def test_causes_and_notes_are_kept() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            outer = ValueError("outer")
            outer.add_note("a note")
            raise outer from inner
    except ValueError as error:
        text = failure(error, None).error
    assert "KeyError: 'inner'" in text
    assert "direct cause" in text
    assert "a note" in text


def test_deep_recursion_is_cut() -> None:
    def deeper() -> None:
        deeper()

    try:
        deeper()
    except RecursionError as error:
        text = failure(error, None).error
    assert "RecursionError" in text
    assert len(text) <= ERROR_LIMIT


def test_giant_messages_are_cut_and_errors_without_text_survive() -> None:
    assert len(failure(ValueError("x" * 10_000_000), None).error) <= ERROR_LIMIT
    assert len(failure(ValueError("x" * 1_000_000, "y" * 1_000_000), None).error) <= ERROR_LIMIT

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

        __repr__ = __str__

    assert "Mute" in failure(raised(MuteError()), None).error


def test_tracebacks_start_in_user_code() -> None:
    error = raised(ValueError())
    trace = user_traceback(error.__traceback__)
    assert trace is not None
    assert trace.tb_frame.f_code.co_filename == __file__
    assert user_traceback(None) is None
