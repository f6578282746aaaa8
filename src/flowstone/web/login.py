"""The routes that are about the reader: logging in and out, the printed link, and what this browser prefers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from starlette.responses import Response

from flowstone.core.actor import Actor, acting
from flowstone.core.clean import clean_text
from flowstone.errors import FlowStoneError
from flowstone.web.access import Access, session_cookie
from flowstone.web.answers import Exchange, below, form_pairs, html_answer, query_pairs, set_cookie
from flowstone.web.guard import SAFE
from flowstone.web.problems import Problem
from flowstone.web.registry import Person
from flowstone.web.rendering import THEMES, Frame, render
from flowstone.web.shown import zones

log = logging.getLogger("flowstone.web")

_YEAR = 365 * 86_400
_HASHING = 2


class Login:
    """Opens and ends sessions.

    Args:
        access: who is who.
        frame: makes what surrounds a page.
        note: writes a line of the audit log.
    """

    def __init__(self, access: Access, frame: Callable[[Exchange, str], Frame], note: Callable[..., None]) -> None:
        self._access = access
        self._frame = frame
        self._note = note
        # what a password costs is meant to be much: guessing must not take the machine
        self._hashing = ThreadPoolExecutor(_HASHING, thread_name_prefix="flowstone-web-login")

    async def _write_down(self, action: str, name: str, client: str) -> None:
        """Write a line of the audit log; a database that does not answer keeps nobody from seeing that."""

        def write() -> None:
            with acting(Actor(name or "nobody", "web")):
                self._note(action, f"person:{name}", {"client": client})

        try:
            await asyncio.to_thread(write)
        except FlowStoneError as error:
            log.warning("%s of %r cannot be written into the audit log: %s", action, name, error)

    async def prefer(self, exchange: Exchange) -> Response:
        """Keep what this browser prefers."""
        pairs = dict(await form_pairs(exchange.request))
        unknown = set(pairs) - {"theme", "zone", "shortcuts", "back"}
        theme, zone = pairs.get("theme", "system"), pairs.get("zone", "UTC")
        if unknown or theme not in THEMES or zone not in zones():
            raise Problem(400, "The theme or the time zone is not known.", "Write a zone such as Europe/Berlin.")
        location = exchange.way.prefix + below([pairs.get("back", "")])
        response = Response(status_code=303, headers={"Location": location})
        shortcuts = "on" if pairs.get("shortcuts") == "on" else "off"
        for name, value in (("theme", theme), ("zone", zone.replace("/", "%2F")), ("shortcuts", shortcuts)):
            set_cookie(response, f"flowstone_{name}", value, exchange.way, seconds=_YEAR)
        return response

    async def login(self, exchange: Exchange) -> Response:
        """Show the form, or open a session for a name and its password."""
        if not self._access.has_passwords:
            raise Problem(404, "There are no passwords here.", "Open the address that `flowstone web` printed.")
        if exchange.method in SAFE:
            pairs = dict(query_pairs(exchange.request))
            return self._login_form(exchange, below([pairs.get("next", "")]), "", 200)
        pairs = dict(await form_pairs(exchange.request))
        name, following = pairs.get("name", "")[:200], below([pairs.get("next", "")])
        client = exchange.way.client
        if set(pairs) - {"name", "password", "next"}:
            raise Problem(400, "The login takes a name and a password.", "Use the form.")
        if wait := self._access.attempts.wait(name, client):
            log.warning("Login of %r from %s refused: too many failures.", name, client)
            raise Problem(
                429, "Too many logins failed.", f"Try again in {wait} seconds.", {"Retry-After": str(wait)}
            )
        assert self._access.users is not None
        check = partial(self._access.users.check, name, pairs.get("password", "")[:1000])
        person = await asyncio.get_running_loop().run_in_executor(self._hashing, check)
        if person is None:
            self._access.attempts.failed(name, client)
            log.warning("Login of %r from %s failed.", name, client)
            await self._write_down("login.failed", clean_text(name), client)
            return self._login_form(exchange, following, "Name or password is wrong.", 401)
        log.info("Login of %r from %s.", name, client)
        await self._write_down("login.succeeded", name, client)
        return self._open_session(person, exchange, following)

    def _login_form(self, exchange: Exchange, following: str, failed: str, status: int) -> Response:
        frame = self._frame(exchange, "Log in")
        return html_answer(render("login.html", frame, failed=failed, next=following), exchange, status=status)

    async def open_link(self, exchange: Exchange) -> Response:
        """Open a session for the secret of the printed address."""
        pairs = dict(query_pairs(exchange.request))
        link = self._access.link
        if exchange.method != "GET" or link is None:
            raise Problem(404, "There is no link to open here.")
        if (person := link.redeem(pairs.get("open", ""))) is not None:
            log.info("The printed link was opened from %s.", exchange.way.client)
            await self._write_down("login.succeeded", person.name, exchange.way.client)
            return self._open_session(person, exchange, "/")
        if await self._access.person(exchange.request, exchange.way) is not None:
            return Response(status_code=303, headers={"Location": exchange.way.cookie_path})
        raise Problem(401, "This link was opened before, or is of another start.", "Start `flowstone web` again.")

    def _open_session(self, person: Person, exchange: Exchange, following: str) -> Response:
        name = session_cookie(exchange.way)
        self._access.sessions.close(exchange.request.cookies.get(name))
        key = self._access.sessions.open(person)
        response = Response(status_code=303, headers={"Location": exchange.way.prefix + following})
        set_cookie(response, name, key, exchange.way, seconds=12 * 3600)
        return response

    async def logout(self, exchange: Exchange) -> Response:
        """End the session."""
        name = session_cookie(exchange.way)
        self._access.sessions.close(exchange.request.cookies.get(name))
        response = Response(status_code=303, headers={"Location": exchange.way.cookie_path})
        set_cookie(response, name, "", exchange.way, seconds=0)
        return response
