"""The installation: what is wrong with it, its settings, migrations, tables and connections."""

from __future__ import annotations

from flowstone.app.system import System
from flowstone.web.fields import NoFields
from flowstone.web.registry import PageRequest, Role, page


@page("/system", template="system.html", role=Role.OPERATOR, title="System", rail="System")
def system(request: PageRequest[NoFields]) -> System:
    """Return the installation."""
    return request.insights.system()
