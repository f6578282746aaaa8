"""What committed decisions leave out of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from flowstone.core.graph import AssetGraph
from flowstone.core.route import decision_of
from flowstone.core.step import Target
from flowstone.engine.inputs import InputReader
from flowstone.protocols import Catalog


class Routing:
    """Answers which targets the committed versions of their routers did not choose.

    Args:
        graph: the assets with their routes.
        reader: knows which partitions of a router a branch reads.
        catalog: what is committed.
    """

    def __init__(self, graph: AssetGraph, reader: InputReader, catalog: Catalog) -> None:
        self._graph = graph
        self._reader = reader
        self._catalog = catalog
        self.any_routes = any(asset.routes for asset in graph)
        """Whether any asset decides about others."""

    def not_chosen(
        self, targets: Iterable[Target], now: datetime, decides_again: Callable[[Target], bool]
    ) -> dict[Target, str]:
        """Return the targets that are not to run, and why.

        A branch that was committed after the decision counts as chosen: it was computed by force.

        Args:
            targets: in question; those that nobody decides about cost nothing.
            now: time that decides which partitions are complete.
            decides_again: whether a router is about to be computed, so that its old decision is void.
        """
        pairs = [
            (target, router)
            for target in dict.fromkeys(targets)
            if self._graph.routers(target[0])
            for router in self._deciding(target, now)
            if not decides_again(router)
        ]
        if not pairs:
            return {}
        committed = self._catalog.current([target for target, _ in pairs])
        deciding = self._catalog.resolve([("", *router) for _, router in pairs])
        found: dict[Target, str] = {}
        for (target, router), version in zip(pairs, deciding, strict=True):
            decision = decision_of(version.stored) if version is not None else None
            if version is None or decision is None or target[0] in decision.chosen:
                continue
            if committed.get(target, 0) < version.step_id:
                found.setdefault(target, decision.explain(router[0]))
        return found

    def _deciding(self, target: Target, now: datetime) -> list[Target]:
        routers = self._graph.routers(target[0])
        return [read for read in self._reader.targets(*target, now) if read[0] in routers]
