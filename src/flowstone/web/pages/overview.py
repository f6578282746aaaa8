"""The first page: is anything broken, does anything wait for me? And the search."""

from __future__ import annotations

from dataclasses import dataclass

from flowstone.engine.insights.overview import Overview
from flowstone.engine.insights.search import Found
from flowstone.web.fields import NoFields, number, text
from flowstone.web.registry import PageRequest, Role, page


@page("/", template="overview.html", role=Role.VIEWER, title="Overview", rail="Overview")
def overview(request: PageRequest[NoFields]) -> Overview:
    """Return what a person sees first."""
    return request.insights.overview()


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What to find.

    Args:
        text: the beginning of a name, an id or a partition.
        limit: how many of each kind.
    """

    text: str = text(maximum=200)
    limit: int = number(10, minimum=1, maximum=100)


@page("/search", template="search.html", query=SearchQuery, role=Role.VIEWER, title="Search")
def search(request: PageRequest[SearchQuery]) -> Found:
    """Return what a search found."""
    return request.insights.search(request.query.text, limit=request.query.limit)
