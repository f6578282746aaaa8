"""Where the function of an asset is called, when that is not the process that holds its step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

type PerformCall = Callable[[bytes], bytes]
"""Runs a call where it is computed: takes its payload, returns the answer. It raises only when the payload cannot
be read there; whatever the asset does is in the answer. It is found by import, from `flowstone.remote`."""

type CancelCall = Callable[[str, str], bool]
"""Cancels a call in the process that runs it, by key and reason; returns whether it runs there."""

type LoggedByCall = Callable[[str, int], tuple[int, bytes] | None]
"""Returns, in the process that runs a call, what it has logged after so many entries: how many they are then, and
the entries; None when there are none."""

type Code = Literal["reference", "cloudpickle"]
"""How the function travels: as the name under which it is imported there, or by value."""

type Values = Literal["remote", "local"]
"""Whether inputs are loaded, and the value is stored, where it is computed or by the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeCall:
    """One attempt, on its way to where it is computed.

    Args:
        key: unique for this call: no other one, of any app on the same cluster, has it.
        asset: name of the asset.
        payload: the call itself, for `perform`.
        options: `compute_options` of the asset.
        perform: runs it there.
        cancel: cancels it there.
        logged: returns there what it logs meanwhile, for `arrived` here; a compute that does not carry that leaves
            it to the answer.
        wake: has the waiting step ask for the answer; to be called whenever there may be one, from any thread.
        arrived: takes what `logged` returned, batch after batch in their order, from any thread.
        printed: keeps with the step what is written meanwhile: the name of the stream, and the text.
    """

    key: str
    asset: str
    payload: bytes = field(repr=False)
    options: Mapping[str, Any]
    perform: PerformCall
    cancel: CancelCall
    logged: LoggedByCall
    wake: Callable[[], None]
    arrived: Callable[[bytes], None]
    printed: Callable[[str, str], object]


@runtime_checkable
class SubmittedCall(Protocol):
    """A call that was handed over; one thread uses it."""

    def answer(self) -> bytes | None:
        """Return the answer; None as long as there is none.

        Raises:
            ComputeLostError: there will be none.
        """

    def waits_for(self) -> str | None:
        """Return what the call waits for before it begins there, for people; None when it runs, or nobody knows.

        Called now and then; it may take some seconds, and never raises anything else.

        Raises:
            ComputeLostError: the call is not known there any more.
        """

    def cancel(self, reason: str) -> None:
        """Have the call learn that it is to stop; one that waits there never begins. It never raises."""

    def release(self) -> None:
        """Let go of it: nobody waits any more. What still runs is ended where that is possible; never raises."""


@runtime_checkable
class Compute(Protocol):
    """Runs the functions of assets somewhere else; the step stays with the worker that claimed it.

    That worker hands an attempt over once, waits and commits. A compute keeps no books, repeats nothing, and
    reports what it does not know as lost. Methods are called by many threads at once.
    """

    @property
    def code(self) -> Code:
        """How functions travel."""

    @property
    def values(self) -> Values:
        """Where values are loaded and stored when their IO manager is shared."""

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse `compute_options` of an asset that cannot work, when the app is made.

        Raises:
            OptionsError: names the option.
        """

    def submit(self, call: ComputeCall) -> SubmittedCall:
        """Hand a call over, and return at once.

        Raises:
            ComputeLostError: it cannot be handed over.
        """

    def close(self) -> None:
        """Release connections and threads; it can be used again."""


@runtime_checkable
class DiagnosesItself(Protocol):
    """A compute that can say what about its surroundings is to be changed, for `flowstone doctor --app`."""

    def diagnose(self) -> Iterator[tuple[Literal["ok", "warn", "fail"], str, str]]:
        """Yield verdict, what was found, and what to do about it; it may take a few seconds."""
