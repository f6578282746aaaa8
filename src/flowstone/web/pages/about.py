"""What this dashboard is, and what the reader may do here: also the smallest example of a page."""

from __future__ import annotations

from dataclasses import dataclass

from flowstone import __version__
from flowstone.web.fields import NoFields
from flowstone.web.registry import PageRequest, Role, actions, page


@dataclass(frozen=True, slots=True)
class AboutModel:
    """The app, and who reads.

    Args:
        version: of FlowStone.
        project: whose tables these are.
        assets: how many are declared.
        store: where is recorded.
        person: name of the reader.
        role: of the reader.
        allowed: titles of the actions of this role.
    """

    version: str
    project: str
    assets: int
    store: str
    person: str
    role: str
    allowed: tuple[str, ...]


@page("/about", template="about.html", title="About", role=Role.VIEWER, personal=True)
def about(request: PageRequest[NoFields]) -> AboutModel:
    """Return what the app is."""
    flow, person = request.flow, request.person
    return AboutModel(
        version=__version__,
        project=flow.settings.project,
        assets=len(flow.graph.assets),
        store=flow.parts.store.name,
        person=person.name,
        role=person.role.label,
        allowed=tuple(sorted(one.title for one in actions().values() if person.role >= one.role)),
    )
