"""How often, and after how long, a failed attempt is repeated."""

from __future__ import annotations

from dataclasses import dataclass

from flowstone.errors import DefinitionError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try again: exponential backoff with jitter.

    The delay after attempt n is `backoff_seconds * factor ** (n - 1)`, at most `max_backoff_seconds`,
    moved by up to `jitter` of itself either way.

    Args:
        max_attempts: attempts in all, at least 1.
        backoff_seconds: delay after the first attempt, in seconds.
        factor: by what the delay grows with each attempt.
        max_backoff_seconds: longest delay, in seconds.
        jitter: largest random share added or taken, 0 to 1.
        retry_on: exception classes worth another attempt.
        fatal_on: exception classes that never are, even when `retry_on` matches.

    Raises:
        DefinitionError: a figure is out of range.

    Example:
        >>> policy = RetryPolicy()
        >>> [policy.delay_seconds(attempt) for attempt in (1, 2, 3, 4, 5)]
        [10.0, 30.0, 90.0, 270.0, 300.0]
    """

    max_attempts: int = 3
    backoff_seconds: float = 10.0
    factor: float = 3.0
    max_backoff_seconds: float = 300.0
    jitter: float = 0.1
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    fatal_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if type(self.max_attempts) is not int or not 1 <= self.max_attempts <= 1000:
            raise DefinitionError(f"RetryPolicy(max_attempts={self.max_attempts}): give 1 to 1000")
        if not (self.backoff_seconds >= 0 and self.max_backoff_seconds >= 0):  # NaN is refused as well
            raise DefinitionError("RetryPolicy: a backoff cannot be negative")
        if not self.factor >= 1:
            raise DefinitionError(f"RetryPolicy(factor={self.factor}): give 1 or more")
        if not 0 <= self.jitter <= 1:
            raise DefinitionError(f"RetryPolicy(jitter={self.jitter}): give a share from 0 to 1")

    def delay_seconds(self, attempt: int, *, chance: float = 0.5) -> float:
        """Return the delay after a failed attempt, in seconds.

        Args:
            attempt: the attempt that failed, from 1.
            chance: a random number from 0 to 1; 0.5 gives the delay without jitter.
        """
        try:
            raw = self.backoff_seconds * self.factor ** (attempt - 1)
        except OverflowError:
            raw = self.max_backoff_seconds
        capped = min(raw, self.max_backoff_seconds)
        return capped * (1.0 + self.jitter * (2.0 * chance - 1.0))

    def retries(self, error: BaseException) -> bool:
        """Whether this error is worth another attempt, the number of attempts aside."""
        return isinstance(error, self.retry_on) and not isinstance(error, self.fatal_on)


NO_RETRY = RetryPolicy(max_attempts=1)
