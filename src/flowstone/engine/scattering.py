"""Which part of a scatter a claimed step is about to run: discovering, an item, or gathering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from flowstone.core.graph import AssetGraph
from flowstone.core.items import decode_item
from flowstone.core.outcome import Scattered
from flowstone.core.output import StoredOutput
from flowstone.core.partition import partition_label
from flowstone.core.scatter import ItemAsset, Scatter, ScatterPhase
from flowstone.core.scattering import ScatterRecord
from flowstone.core.state import State
from flowstone.core.step import Claim
from flowstone.core.text import error_line
from flowstone.engine.discovery import Discovery
from flowstone.engine.gathered import IO_NAME, Gathered, key_in
from flowstone.engine.inputs import ResolvedInputs
from flowstone.errors import ScatterFailedError
from flowstone.protocols import ScatterStore

_SHOWN = 3
_MAX_ERROR = 200


class Scattering:
    """Completes the inputs of steps that belong to scatters.

    Args:
        graph: the assets.
        store: where items are.
        load: loads the stored value of an item.
    """

    def __init__(self, graph: AssetGraph, store: ScatterStore, load: Callable[[StoredOutput], object]) -> None:
        self._store = store
        self._load = load
        self._scatters = {one.name: one for one in graph if isinstance(one, Scatter)}
        self._items = {one.name: one for one in graph if isinstance(one, ItemAsset)}

    @property
    def in_use(self) -> bool:
        """Whether any asset scatters."""
        return bool(self._scatters)

    def complete(self, claims: Sequence[Claim], resolved: list[ResolvedInputs]) -> None:
        """Say of each step of a scatter what runs and with what; in place, with two questions for all of them."""
        items = [position for position, claim in enumerate(claims) if claim.asset in self._items]
        scatters = [position for position, claim in enumerate(claims) if claim.asset in self._scatters]
        if items:
            texts = self._store.items([claims[position].step_id for position in items])
            for position in items:
                resolved[position] = self._of_item(claims[position], texts)
        if scatters:
            records = self._store.of_steps([claims[position].step_id for position in scatters])
            for position in scatters:
                claim = claims[position]
                resolved[position] = self._of_scatter(claim, records.get(claim.step_id), resolved[position])

    def _of_item(self, claim: Claim, texts: dict[int, str]) -> ResolvedInputs:
        text = texts.get(claim.step_id)
        if text is None:
            gone = LookupError("This item was discovered by an attempt that was repeated, and not found again.")
            return ResolvedInputs((), [], [], error=gone)
        return ResolvedInputs((), [], [], given={self._items[claim.asset].parameter: decode_item(text)})

    def _of_scatter(self, claim: Claim, record: ScatterRecord | None, inputs: ResolvedInputs) -> ResolvedInputs:
        scatter = self._scatters[claim.asset]
        if record is None or record.is_open:
            discovery = Discovery(scatter, claim, self._store)
            phase = scatter.phase(discovery.function(), takes_context=True, is_async=discovery.is_async)
            phase.routes = ()
            return replace(inputs, phase=phase)
        if not record.is_over:
            return ResolvedInputs((), [], [], phase=_resting(scatter, record), recorded=record.inputs)
        error = self._too_many_failures(scatter, record)
        return ResolvedInputs((), [], [], error, phase=self._gathering(scatter, record), recorded=record.inputs)

    def _too_many_failures(self, scatter: Scatter, record: ScatterRecord) -> ScatterFailedError | None:
        counts = self._store.counts(record.run_id)
        allowed = record.allowed or 0
        if counts.failed + counts.cancelled <= allowed:
            return None
        return ScatterFailedError(
            scatter.name,
            record.run_id,
            total=counts.total,
            failed=counts.failed,
            cancelled=counts.cancelled,
            allowed=allowed,
            first=self._first_failures(record.run_id),
        )

    def _gathering(self, scatter: Scatter, record: ScatterRecord) -> ScatterPhase:
        reader = Gathered(record.run_id, self._store, self._load)
        if scatter.gathering is None:
            phase = scatter.phase(lambda: reader, takes_context=False, is_async=False)
            phase.io, phase.has_own_io = IO_NAME, False
            return phase
        gathering = scatter.gathering
        function = partial(gathering.function, **{scatter.results: reader})
        return scatter.phase(function, takes_context=gathering.takes_context, is_async=gathering.is_async)

    def _first_failures(self, run_id: str) -> list[tuple[str, str]]:
        page = self._store.page(run_id, after=-1, limit=_SHOWN, states=(State.FAILED,))
        return [(partition_label(key_in(row.partition)), _cause(row.error)) for row in page]


def _resting(scatter: Scatter, record: ScatterRecord) -> ScatterPhase:
    """A step that was started although its items are not over, by repair, goes back to rest."""
    again = Scattered(record.total or 0, record.allowed or 0)
    return scatter.phase(lambda: again, takes_context=False, is_async=False)


def _cause(text: str | None) -> str:
    cause = error_line(text) or "no error was recorded"
    return cause.rstrip(".") if len(cause) <= _MAX_ERROR else f"{cause[: _MAX_ERROR - 1]}…"
