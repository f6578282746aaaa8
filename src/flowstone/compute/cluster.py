"""What the computes here share: what they are declared with, and handing a call to the client of a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from flowstone.core.clean import plain_text
from flowstone.core.declaring import shown
from flowstone.errors import ComputeLostError, ConfigurationError, MissingExtraError, OptionsError, did_you_mean
from flowstone.protocols import Code, ComputeCall, SubmittedCall, Values


class DeclaredCompute:
    """A compute whose maker says how code and values travel.

    Args:
        code: see `flowstone.protocols.Code`; as are `values`.
        values: where values are loaded and stored.

    Raises:
        ConfigurationError: one of them is something else.
    """

    def __init__(self, code: Code, values: Values) -> None:
        for option, value, kind in (("code", code, Code), ("values", values, Values)):
            allowed = get_args(kind.__value__)
            if value not in allowed:
                raise ConfigurationError(
                    f"{type(self).__name__}({option}={shown(value)}): give {' or '.join(allowed)}."
                )
        self._code, self._values = code, values

    @property
    def code(self) -> Code:
        """How functions travel."""
        return self._code

    @property
    def values(self) -> Values:
        """Where values are loaded and stored."""
        return self._values


class ClusterCompute(DeclaredCompute, ABC):
    """Hands calls to the client of a cluster.

    Attributes:
        kind: the kind of cluster, for people.
        options: what an asset may give its client.
        refused: what it may not give, and why.
    """

    kind: ClassVar[str]
    options: ClassVar[tuple[str, ...]]
    refused: ClassVar[Mapping[str, str]]

    @property
    @abstractmethod
    def where(self) -> str:
        """The cluster, for people."""

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse what the client does not take, or what would have the cluster run a call again.

        Raises:
            OptionsError: names the option.
        """
        for name, value in options.items():
            if name in self.refused:
                raise OptionsError(f"the option {name!r} is not for {self.kind} here: {self.refused[name]}")
            if name not in self.options:
                raise OptionsError(
                    f"{self.kind} has no option {name!r} here.{did_you_mean(name, self.options)} Its options: "
                    f"{', '.join(self.options)}."
                )
            if problem := self._problem(name, value):
                raise OptionsError(f"the option {name!r} is {shown(value)}: {problem}")

    def submit(self, call: ComputeCall) -> SubmittedCall:
        """Submit a call as one task.

        Raises:
            ComputeLostError: the cluster does not answer.
            MissingExtraError: its package is not installed.
        """
        try:
            return self._hand_over(call)
        except MissingExtraError:
            raise
        except Exception as error:
            why = f"it does not take calls: {one_line(error)}"
            raise ComputeLostError(call.asset, self.where, why) from error

    @abstractmethod
    def _hand_over(self, call: ComputeCall) -> SubmittedCall:
        """Submit a call; whatever is raised means that the cluster does not take it."""

    def _problem(self, name: str, value: object) -> str | None:
        """Return what is wrong with the value of an option; None leaves that to the cluster."""


def one_line(error: BaseException | None) -> str:
    """Return an error as one line of bounded length.

    Example:
        >>> one_line(ValueError("no\\nroom"))
        'ValueError: no'
    """
    text = plain_text(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:500]}" if text else type(error).__name__
