"""`flow.reading()`: what there is to see over connections that cannot write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Self

from flowstone.app.build import Parts

if TYPE_CHECKING:
    from flowstone.app.insights import InsightsView
    from flowstone.engine.insights.automation import Automations


class Reading:
    """The insights of an app over a few connections of their own, which cannot write and give up after 3 seconds.

    Whoever serves pages has one for as long as people watch; however slow a question is, workers and verbs of
    the app keep their connections. In memory it is the app itself.

    Args:
        parts: of the app.
        automations: what runs by itself.

    Example:
        >>> from flowstone import FlowStone
        >>> with FlowStone.for_testing([]).reading() as reading, reading.snapshot() as insights:
        ...     insights.workers().alive
        0
    """

    def __init__(self, parts: Parts, automations: Automations | None = None) -> None:
        self._store = parts.store.reading()
        self.parts = replace(parts, store=self._store)
        """The parts of the app with the store that only reads."""
        kind: type[InsightsView] = import_module("flowstone.app.insights").InsightsView
        self.insights = kind(self.parts, automations, main=parts if parts.store.shared else None)
        """What there is to see; each question is answered from the state of its moment."""

    @contextmanager
    def snapshot(self) -> Iterator[InsightsView]:
        """Answer every question of this thread from one state of the data.

        Raises:
            QuestionTooSlowError: raised by the question that took too long; those after it are answered from a
                newer state.
        """
        with self._store.snapshot():
            yield self.insights

    def close(self) -> None:
        """Close the connections; closing twice is fine."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
