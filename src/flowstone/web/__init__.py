"""The dashboard: pages, their actions and the JSON API, as an ASGI application (extra `web`).

`create_app` mounts it in an application of your own, `flowstone web` serves it alone. Inside, read `registry` (how
a page is declared), `application` (from a request to an answer), `guard` and `access` (who may).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from flowstone.errors import MissingExtraError

if TYPE_CHECKING:
    from flowstone.web.access import LoginLink, UsersFile
    from flowstone.web.application import Dashboard, create_app
    from flowstone.web.registry import Person, Role
    from flowstone.web.server import serve, serving

__all__ = ["Dashboard", "LoginLink", "Person", "Role", "UsersFile", "create_app", "serve", "serving"]

_MODULES = {
    "Dashboard": "flowstone.web.application",
    "LoginLink": "flowstone.web.access",
    "Person": "flowstone.web.registry",
    "Role": "flowstone.web.registry",
    "UsersFile": "flowstone.web.access",
    "create_app": "flowstone.web.application",
    "serve": "flowstone.web.server",
    "serving": "flowstone.web.server",
}


if not TYPE_CHECKING:  # whose checkers would then take every name for one that is there

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        except ModuleNotFoundError as error:
            if (package := (error.name or "").partition(".")[0]) in ("starlette", "jinja2", "uvicorn"):
                raise MissingExtraError(package, "web", "The dashboard") from error
            raise
        return value
