"""The dashboard as an ASGI application: from a request to its route, past the guard, to an answer.

Read `create_app`, then `Dashboard.answer`, which is the only way in: host, route, method, origin, person, role, in
this order, for every route. Who may reach a route is an attribute of it (`Route.role`), and no part of its path
decides anything.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flowstone import __version__
from flowstone.app.flow import FlowStone
from flowstone.app.reading import Reading
from flowstone.core.actor import Actor, acting
from flowstone.errors import ConfigurationError
from flowstone.observability.metrics import CONTENT_TYPE, Metrics, TableMetrics
from flowstone.web.access import Access, Identify, LoginLink, Sessions, UsersFile
from flowstone.web.answers import (
    Exchange,
    below,
    document_of,
    file_answer,
    form_pairs,
    html_answer,
    json_answer,
    person_of,
    query_of,
    query_pairs,
    send_file,
    set_cookie,
)
from flowstone.web.chrome import Chrome, read_chrome
from flowstone.web.fields import NoFields, pairs_of, parse_document, parse_pairs
from flowstone.web.guard import SAFE, SECURITY_HEADERS, Guard, Way, check_origin
from flowstone.web.live import Live
from flowstone.web.login import Login
from flowstone.web.openapi import document
from flowstone.web.problems import Problem, problem_of
from flowstone.web.registry import (
    Action,
    ActionCall,
    Confirm,
    Done,
    Page,
    PageRequest,
    Person,
    PlainFile,
    Role,
    actions,
    pages,
)
from flowstone.web.rendering import Frame, Preferences, person_named, render
from flowstone.web.sharing import Shared
from flowstone.web.static_files import static_files

log = logging.getLogger("flowstone.web")

API = "/api/v1"
_THREADS = 8
_FRESH_SECONDS = 1.0
_CHROME_SECONDS = 3.0


type Handler = Callable[[Exchange], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One address and what guards it.

    Args:
        path: all of it, below the prefix.
        methods: what it answers.
        handler: what answers.
        role: who may reach it; None for everybody, which only the login and static files are.
        kind: `page`, `action`, `api`, `public` or `stream`.
        changes: the role that a method other than GET needs, when it is another one.
    """

    path: str
    methods: frozenset[str]
    handler: Handler
    role: Role | None = Role.ADMIN
    kind: str = "page"
    subject: Page | Action | None = None


def create_app(
    flow: FlowStone,
    *,
    identify: Identify | None = None,
    users_file: str | Path | None = None,
    read_only: bool = False,
    allowed_hosts: Iterable[str] = (),
    trusted_proxies: Iterable[str] = (),
    user_header: str | None = None,
    prefix: str = "",
    login_link: LoginLink | None = None,
    sessions_file: Path | None = None,
    title: str = "",
) -> Dashboard:
    """Return the dashboard of an app, to be served alone or mounted in another ASGI application at any prefix.

    Args:
        flow: the app.
        identify: a function, awaited when it is a coroutine function, that is given the Starlette request and
            returns who sends it: `Person("ann", Role.OPERATOR)`, or None for nobody. The application around the
            dashboard knows that.
        users_file: people with passwords, and tokens of the JSON API; `flowstone web passwd` and `flowstone web
            token` write it.
        read_only: leaves all actions out.
        allowed_hosts: names of the server besides those of loopback.
        trusted_proxies: addresses or networks whose `X-Forwarded-*` headers count.
        user_header: header with which a trusted proxy names the person, who needs an entry in the users file.
        prefix: below which a proxy serves it that sends no `X-Forwarded-Prefix`, whether it strips that or not.
            Where it is mounted in another application is known without.
        login_link: the secret of an address that is printed at a start.
        sessions_file: where the hashes of sessions are kept over a restart; None for in memory.
        title: how the app is called in the top bar; by default its project.

    Raises:
        ConfigurationError: nothing says who may see it, or a setting cannot work.

    Example:
        >>> from flowstone import FlowStone
        >>> from flowstone.web import Person, Role, create_app
        >>> create_app(FlowStone.for_testing([]), identify=lambda request: Person("ann", Role.VIEWER))
        Dashboard(project='default')
    """
    if identify is None and users_file is None and login_link is None:
        raise ConfigurationError(
            "Who may see the dashboard? Pass identify=, a function from the request to flowstone.web.Person(name, "
            "role), or users_file=, which `flowstone web passwd NAME` writes; `flowstone web` prints a link."
        )
    if user_header is not None and (not list(trusted_proxies) or users_file is None):
        raise ConfigurationError(
            f"user_header={user_header!r} needs trusted_proxies=, the addresses that may send it, and "
            "users_file=, which says what each person may do."
        )
    users = UsersFile(Path(users_file)) if users_file is not None else None
    sessions = Sessions(file=sessions_file)
    access = Access(identify=identify, users=users, link=login_link, user_header=user_header, sessions=sessions)
    return Dashboard(
        flow,
        access=access,
        guard=Guard.of(allowed_hosts, trusted_proxies, prefix),
        read_only=read_only,
        title=title,
    )


class Dashboard:
    """The ASGI application; made by `create_app`.

    Args:
        flow: the app.
        access: who is who.
        guard: hosts and proxies.
        read_only: whether there are no actions.
        title: of the app.
    """

    def __init__(
        self, flow: FlowStone, *, access: Access, guard: Guard, read_only: bool = False, title: str = ""
    ) -> None:
        self.flow = flow
        self.access = access
        self.guard = guard
        self.read_only = read_only
        self.title = title or ("" if flow.settings.project == "default" else flow.settings.project)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="flowstone-web")
        self._shared: Shared[tuple[Any, ...], Any] = Shared(_FRESH_SECONDS)
        self._slow: Shared[tuple[Any, ...], Any] = Shared(_CHROME_SECONDS)
        self._messages: dict[str, str] = {}
        self._reading: Reading | None = None
        self._metrics: Metrics | None = None
        self._guard_of_reading = threading.Lock()
        self.live = Live(self._pulse, on_change=self._shared.clear)
        flow.parts.before_close.append(self.close)
        self.routes = {route.path: route for route in self._routes()}

    def close(self) -> None:
        """End the streams and the threads; closing the app does so."""
        self.live.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __repr__(self) -> str:
        return f"Dashboard(project={self.flow.settings.project!r})"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; see ASGI."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        request = Request(scope, receive)
        response = await self.answer(request)
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        if request.method == "HEAD":
            response.body = b""
        await response(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """Return the answer to a request: every one passes here, and nothing answers that did not."""
        way, person = Way(str(request.scope["path"]), "", "", "http", "", proxied=False), None
        route: Route | None = None
        try:
            way = self.guard.way(request.scope, request.headers)
            route = self.routes.get(way.path)
            check_origin(str(request.method), way, request.headers)
            if route is None:
                person = await self.access.person(request, way)
                raise self._no_route(way)
            if route.role is not None:
                person = await self.access.person(request, way)
                if person is None:
                    raise self._nobody(route, way, request)
                if person.role < route.role:
                    raise Problem(
                        403,
                        f"That needs the role {route.role.label}; {person.name} has the role {person.role.label}.",
                        "Ask a person with the role admin.",
                    )
            if request.method not in route.methods:
                allowed = ", ".join(sorted(route.methods))
                raise Problem(405, f"{request.method} does nothing here; {allowed} do.", "", {"Allow": allowed})
            return await route.handler(Exchange(request, way, person))
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered with a page and no traceback
            return self._refusal(error, route, Exchange(request, way, person))

    # -- the routes -----------------------------------------------------------------------------------------------

    def _routes(self) -> Iterable[Route]:
        get, post, both = frozenset({"GET", "HEAD"}), frozenset({"POST"}), frozenset({"GET", "HEAD", "POST"})
        for page in pages().values():
            shown, sent = partial(self._show, page), partial(self._send, page)
            methods, twin = both if page.posts else get, API + page.api
            yield Route(path=page.path, methods=methods, handler=shown, role=page.role, subject=page)
            yield Route(path=twin, methods=methods, handler=sent, role=page.role, kind="api", subject=page)
        for action in () if self.read_only else actions().values():
            form, document = partial(self._act, action), partial(self._act_api, action)
            yield Route(
                path=action.path, methods=both, handler=form, role=action.role, kind="action", subject=action
            )
            yield Route(
                path=API + action.path,
                methods=post,
                handler=document,
                role=action.role,
                kind="api",
                subject=action,
            )
        yield Route(path="/metrics", methods=get, handler=self._scrape, role=Role.VIEWER, kind="api")
        yield Route(path=f"{API}/openapi.json", methods=get, handler=self._describe, role=Role.VIEWER, kind="api")
        login = Login(self.access, self._frame, self.flow.parts.store.audit.note)
        yield Route(path="/preferences", methods=post, handler=login.prefer, role=Role.VIEWER, kind="preferences")
        if self.access.has_sessions:
            yield Route(path="/login", methods=both, handler=login.login, role=None, kind="public")
            yield Route(path="/login/link", methods=get, handler=login.open_link, role=None, kind="public")
            yield Route(path="/logout", methods=post, handler=login.logout, role=Role.VIEWER, kind="session")
        yield Route(path="/live", methods=frozenset({"GET"}), handler=self._watch, role=Role.VIEWER, kind="stream")
        for path, file in static_files().items():
            handler = partial(send_file, file)
            yield Route(path=path, methods=get, handler=handler, role=None, kind="public")

    def _no_route(self, way: Way) -> Problem:
        known = way.path.removeprefix(API)
        if self.read_only and known in actions():
            return Problem(403, "This dashboard is read-only: it has no actions.", "Use the command line.")
        return Problem(404, f"There is no page {way.path[:200]!r}.", "Search for it, or begin with the overview.")

    def _nobody(self, route: Route, way: Way, request: Request) -> Problem:
        if route.kind in ("api", "stream"):
            return Problem(
                401,
                "This needs a token, or a session of the dashboard.",
                "`flowstone web token NAME --role viewer` makes a token; send it as Authorization: Bearer.",
                {"WWW-Authenticate": "Bearer"},
            )
        if self.access.has_passwords:
            query = request.scope.get("query_string", b"").decode("latin-1")
            back = way.path + (f"?{query}" if query else "") if request.method in SAFE else "/"
            location = Frame(prefix=way.prefix, path="/", title="").url("login", next=back)
            return Problem(303, "", "", {"Location": location})
        if self.access.link is not None:
            return Problem(
                401,
                "This browser has no session.",
                "Open the address that `flowstone web` printed.",
            )
        return Problem(401, "The application around this dashboard does not know you.", "Log in there.")

    # -- pages ----------------------------------------------------------------------------------------------------

    async def _show(self, page: Page, exchange: Exchange) -> Response:
        query = await _fields(page, exchange)
        person, preferences = person_of(exchange), Preferences.of(exchange.request.cookies)
        message = self._messages.pop(exchange.request.cookies.get("flowstone_done", ""), "")

        async def fresh() -> Any:
            model, chrome = await self._model(page, query, person), await self._chrome()
            if isinstance(model, PlainFile):
                return model
            frame = self._frame(exchange, page.title, page=page, query=query, message=message, chrome=chrome)
            refused = bool(getattr(model, "refused", False))
            return await self._in_thread(render, page.template, frame, model=model), refused

        key = (*_key(page, query, person), exchange.way.prefix, preferences)
        found = await fresh() if message else await self._shared.get(key, fresh)
        if isinstance(found, PlainFile):
            return file_answer(found.name, found.text, exchange)
        text, refused = found
        return html_answer(person_named(text, person), exchange, status=422 if refused else 200)

    async def _send(self, page: Page, exchange: Exchange) -> Response:
        if exchange.method == "POST":
            query: Any = parse_document(page.query, await document_of(exchange.request))
        else:
            query = query_of(page.query, exchange.request)
        model = await self._model(page, query, person_of(exchange))
        return json_answer(model, exchange, status=422 if getattr(model, "refused", False) else 200)

    async def _describe(self, exchange: Exchange) -> Response:
        """Answer with the OpenAPI document."""
        if query_pairs(exchange.request):
            raise Problem(400, "The document takes no fields.", "Ask for it without.")
        done = () if self.read_only else actions().values()
        return json_answer(document(pages().values(), done, base=API, prefix=exchange.way.prefix), exchange)

    async def _model(self, page: Page, query: object, person: Person) -> object:
        """Return the model of a page, made once a second for all who may see the same."""

        async def fresh() -> object:
            return await self._in_thread(self._read, page, query, person)

        return await self._shared.get(("model", *_key(page, query, person)), fresh)

    def _read(self, page: Page, query: object, person: Person) -> object:
        """Call the function of a page; its questions see one state, on a connection that only reads."""
        reading = self._opened_reading()
        with acting(Actor(person.name, "web")), reading.snapshot() as insights:
            return page.function(PageRequest(self.flow, query, person, datetime.now(UTC), insights))

    def _opened_reading(self) -> Reading:
        with self._guard_of_reading:
            if self._reading is None:
                self._reading = self.flow.reading()
            return self._reading

    async def _chrome(self) -> Chrome:
        """Return what the strip and the rail say, read at most every few seconds for all pages."""

        async def fresh() -> Chrome:
            found: Chrome = await self._in_thread(lambda: read_chrome(self.flow, self._opened_reading()))
            return found

        kept: Chrome = await self._slow.get(("chrome",), fresh)
        return kept

    # -- what changed ---------------------------------------------------------------------------------------------

    async def _pulse(self) -> Mapping[str, str]:
        """Return a text for each topic that is another one when something changed."""
        found: Mapping[str, str] = await self._in_thread(self._read_pulse)
        return found

    def _read_pulse(self) -> Mapping[str, str]:
        return dict(self._opened_reading().insights.pulse()._asdict())

    async def _watch(self, exchange: Exchange) -> Response:
        """Stream what changes to one browser, for as long as it may read."""
        if query_pairs(exchange.request):
            raise Problem(400, "The stream takes no fields.", "Open it without.")

        async def still() -> bool:
            person = await self.access.person(exchange.request, exchange.way)
            return person is not None and person.role >= Role.VIEWER

        return self.live.stream(still)

    async def _scrape(self, exchange: Exchange) -> Response:
        """Answer with what the tables say, as Prometheus reads it."""
        if not set(query_pairs(exchange.request)) <= {("from", "tables")}:
            raise Problem(400, "The metrics here are those of the tables.", "Ask without fields, or ?from=tables.")
        return Response(await self._in_thread(self._read_metrics), media_type=CONTENT_TYPE)

    def _read_metrics(self) -> str:
        if self._metrics is None:
            reading = self._opened_reading()
            tables = TableMetrics(reading.insights, reading.parts.store)
            self._metrics = Metrics(__version__, tables=tables)
        return self._metrics.text("tables")

    # -- actions --------------------------------------------------------------------------------------------------

    async def _act(self, action: Action, exchange: Exchange) -> Response:
        if exchange.method in SAFE:
            return await self._confirm(action, exchange)
        pairs = await form_pairs(exchange.request)
        back = below([value for name, value in pairs if name == "back"])
        form: Any = parse_pairs(action.form, [pair for pair in pairs if pair[0] != "back"])
        done = await self._do(action, form, exchange, "web")
        return self._after(done, back, exchange)

    async def _confirm(self, action: Action, exchange: Exchange) -> Response:
        pairs = query_pairs(exchange.request)
        back = below([value for name, value in pairs if name == "back"])
        form: Any = parse_pairs(action.form, [pair for pair in pairs if pair[0] != "back"])
        call = ActionCall(self.flow, form, person_of(exchange), datetime.now(UTC))
        confirm = Confirm(f"{action.title}?", action.title)
        if action.confirm is not None:
            confirm = await self._in_thread(action.confirm, call)
        frame = self._frame(exchange, confirm.question)
        names = {"confirm": confirm, "form": confirm.form or form, "back": back}
        text = await self._in_thread(render, "confirm.html", frame, **names)
        return html_answer(person_named(text, exchange.person), exchange)

    async def _act_api(self, action: Action, exchange: Exchange) -> Response:
        form: Any = parse_document(action.form, await document_of(exchange.request))
        done = await self._do(action, form, exchange, "json")
        frame = Frame(prefix=exchange.way.prefix, path="/", title="")
        location = frame.to(done.location) if done.location else None
        return json_answer({"message": done.message, "location": location, "result": done.result}, exchange)

    async def _do(self, action: Action, form: object, exchange: Exchange, via: str) -> Done:
        person = person_of(exchange)

        def perform() -> Done:
            with acting(Actor(person.name, via)):
                return action.function(ActionCall(self.flow, form, person, datetime.now(UTC)))

        try:
            done: Done = await self._in_thread(perform)
            return done
        finally:
            self._shared.clear()  # what is shown next is how it is now
            self._slow.clear()

    def _after(self, done: Done, back: str, exchange: Exchange) -> Response:
        frame = Frame(prefix=exchange.way.prefix, path="/", title="")
        response = Response(status_code=303, headers={"Location": frame.to(done.location or back)})
        key = secrets.token_urlsafe(16)
        while len(self._messages) > 1000:
            self._messages.pop(next(iter(self._messages)), None)
        self._messages[key] = done.message
        set_cookie(response, "flowstone_done", key, exchange.way, seconds=60)
        return response

    # -- what is common -------------------------------------------------------------------------------------------

    def _frame(
        self,
        exchange: Exchange,
        title: str,
        *,
        page: Page | None = None,
        query: object = None,
        message: str = "",
        chrome: Chrome | None = None,
    ) -> Frame:
        role = exchange.person.role if exchange.person else None
        reachable = [one for one in self.routes.values() if role is not None and one.role and one.role <= role]
        return Frame(
            prefix=exchange.way.prefix,
            path=exchange.way.path,
            title=title,
            rail=page.rail if page else None,
            topics=page.topics if page else (),
            live=page is not None and role is not None and exchange.method in SAFE,
            query=NoFields() if query is None else query,
            role=role,
            allowed=frozenset(one.path for one in reachable if one.kind == "action"),
            rails=frozenset(one.path for one in reachable if one.kind == "page"),
            preferences=Preferences.of(exchange.request.cookies),
            app=self.title,
            approvals=chrome.approvals if chrome else None,
            notices=chrome.notices if chrome else (),
            message=message,
            can_leave=self.access.has_sessions and "authorization" not in exchange.request.headers,
            version=__version__,
        )

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any, **names: Any) -> Any:
        """Call a function in one of the few threads, with the context of the request."""
        context = contextvars.copy_context()
        work = partial(context.run, partial(function, *arguments, **names))
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _refusal(self, error: Exception, route: Route | None, exchange: Exchange) -> Response:
        """Answer with what went wrong, in the form in which the answer was expected."""
        problem, incident = problem_of(error), ""
        if problem is None:
            incident = secrets.token_hex(4)
            log.error("%s: %s failed", incident, exchange.way.path, exc_info=error)
            problem = Problem(500, "The dashboard failed at this.", "Try again; report it when it stays.")
        elif problem.status >= 500:
            log.warning("%s: %s", exchange.way.path, problem)
        is_api = route.kind in ("api", "stream") if route else exchange.way.path.startswith(API)
        if problem.status == 303:
            return Response(status_code=303, headers=problem.headers)
        if is_api:
            document = {
                "type": "about:blank",
                "title": problem.title,
                "status": problem.status,
                "detail": problem.detail,
                "remedy": problem.remedy,
                **({"incident": incident} if incident else {}),
            }
            return json_answer(document, exchange, status=problem.status, headers=problem.headers, problem=True)
        frame = self._frame(exchange, problem.title)
        text = person_named(render("problem.html", frame, problem=problem, incident=incident), exchange.person)
        return html_answer(text, exchange, status=problem.status, headers=problem.headers)


async def _fields(page: Page, exchange: Exchange) -> Any:
    """Return the fields of a page, from the address or, where that is possible, from a form."""
    if exchange.method == "POST":
        pairs = await form_pairs(exchange.request)
        return parse_pairs(page.query, [pair for pair in pairs if pair[0] != "back"])
    return query_of(page.query, exchange.request)


def _key(page: Page, query: object, person: Person) -> tuple[Any, ...]:
    """Return under what the model of a page is shared with others."""
    return (page.path, tuple(pairs_of(query)), person.role, page.personal and person.name)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
