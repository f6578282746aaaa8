"""The dashboard inside of a FastAPI application, which says who its people are.

    pip install 'flowstone[web]' fastapi
    uvicorn fastapi_dashboard:app

The application knows its people by whatever it uses, here by a cookie that its own login sets; `identify` turns
it into a name and a role. Links, cookies and redirects of the dashboard stay below the place where it is mounted.
"""

from __future__ import annotations

from fastapi import FastAPI, Response
from starlette.requests import Request

from flowstone import FlowStone, asset
from flowstone.web import Person, Role, create_app

PEOPLE = {"ann": Role.OPERATOR, "bob": Role.VIEWER}
"""Stands for a table of the application."""


@asset
def orders() -> list[int]:
    """What was ordered."""
    return [3, 1, 2]


@asset
def revenue(orders: list[int]) -> int:
    """What that comes to."""
    return sum(orders)


def identify(request: Request) -> Person | None:
    """Return who sends a request; a real application reads its signed session here."""
    name = request.cookies.get("employee", "")
    return Person(name, PEOPLE[name]) if name in PEOPLE else None


flow = FlowStone([orders, revenue])
app = FastAPI()
app.mount("/flowstone", create_app(flow, identify=identify, allowed_hosts=["shop.example.com"]))


@app.post("/login/{name}")
def login(name: str, response: Response) -> dict[str, str]:
    """Let a person in; a real application asks for more than the name."""
    response.set_cookie("employee", name, httponly=True, samesite="lax")
    return {"hello": name}
