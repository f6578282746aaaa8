"""What goes wrong in a request, with its status, its reason and what to do next; never a traceback."""

from __future__ import annotations

from dataclasses import dataclass, field

from flowstone.core.clean import clean_text
from flowstone.errors import (
    AppLoadError,
    ApprovalDecidedError,
    ApprovalNotFoundError,
    CountMovedError,
    DatabaseError,
    DependencyNotReadyError,
    FlowStoneError,
    LaunchChangedError,
    PlanOutdatedError,
    QuestionTooSlowError,
    RestoreRefusedError,
    RunConflictError,
    RunNotFoundError,
    SelectionError,
    StorageError,
    TargetActiveError,
    UnknownAssetError,
    UnknownAutomationError,
    UnknownExecutorError,
    UnknownPartitionError,
    VersionNotFoundError,
    WaitTimeoutError,
)

TITLES = {
    400: "That request cannot be read",
    401: "Who are you?",
    403: "Not allowed",
    404: "Not found",
    405: "Not possible here",
    409: "It changed meanwhile",
    413: "Too large",
    415: "Not in this form",
    421: "Wrong host",
    422: "That cannot work",
    429: "Too often",
    500: "A fault of the dashboard",
    503: "Not available right now",
}
_NOT_FOUND = (
    ApprovalNotFoundError,
    RunNotFoundError,
    UnknownAssetError,
    UnknownAutomationError,
    UnknownExecutorError,
    UnknownPartitionError,
    VersionNotFoundError,
)
_CHANGED = (
    ApprovalDecidedError,
    CountMovedError,
    DependencyNotReadyError,
    LaunchChangedError,
    RestoreRefusedError,
    RunConflictError,
    TargetActiveError,
)
_NOT_NOW = (DatabaseError, StorageError, WaitTimeoutError)
TOO_SLOW = "The database needed more than 3 seconds for this."


@dataclass
class Problem(Exception):  # noqa: N818 - it is what a person reads, under this name also in JSON
    """A request that is refused.

    Args:
        status: of HTTP.
        detail: what is wrong, a sentence.
        remedy: what to do next, a sentence.
        headers: to send with it, such as `Retry-After`.

    Example:
        >>> Problem(404, "There is no run r1.").title
        'Not found'
    """

    status: int
    detail: str
    remedy: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.detail} {self.remedy}".rstrip()

    @property
    def title(self) -> str:
        """The status in words."""
        return TITLES.get(self.status, "That did not work")


def problem_of(error: BaseException) -> Problem | None:
    """Return what a person is shown for an error; None for a bug, which goes to the log.

    Example:
        >>> problem_of(UnknownAssetError("x", [])).status, problem_of(KeyError("x"))
        (404, None)
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, QuestionTooSlowError):
        return Problem(503, TOO_SLOW, "Narrow the filter, or ask for a shorter time.", {"Retry-After": "5"})
    if not isinstance(error, FlowStoneError):
        return None
    shown = clean_text(str(error), limit=8_000)
    if isinstance(error, SelectionError) or not isinstance(error, _NOT_FOUND):
        if isinstance(error, PlanOutdatedError):
            return Problem(409, shown, "Ask again.")
        if isinstance(error, _CHANGED):
            return Problem(409, shown, "Load the page again to see how it is now.")
        if isinstance(error, _NOT_NOW) and not isinstance(error, AppLoadError):
            return Problem(503, shown, "Try again in a moment.", {"Retry-After": "5"})
        return Problem(422, shown)
    return Problem(404, shown, "Search for it, or go back.")
