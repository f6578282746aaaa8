"""The dashboard inside of a Starlette application, behind a proxy that knows the people and strips a prefix.

    pip install 'flowstone[web]'
    flowstone web passwd ann --role operator --no-password --users users.json
    uvicorn --factory starlette_dashboard:build

The proxy sends the name in `X-User` and the prefix that it stripped in `X-Forwarded-Prefix`; both count only when
they come from its address. What each person may do stands in the users file.
"""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from flowstone import FlowStone, asset
from flowstone.web import create_app


@asset
def orders() -> list[int]:
    """What was ordered."""
    return [3, 1, 2]


async def hello(request: Request) -> PlainTextResponse:
    """Return the page of the application itself."""
    return PlainTextResponse("hello")


def build(users_file: str | Path = "users.json", proxy: str = "10.0.0.5") -> Starlette:
    """Make the application.

    Args:
        users_file: what each person may do.
        proxy: address of the proxy.
    """
    dashboard = create_app(
        FlowStone([orders]),
        users_file=users_file,
        trusted_proxies=[proxy],
        user_header="X-User",
        allowed_hosts=["shop.example.com"],
    )
    return Starlette(routes=[Route("/", hello), Mount("/data", dashboard)])
