"""How a page or an action is declared: `@page` and `@action` in the modules of `web/pages`.

A page is a function from a parsed query to a frozen dataclass, which a template shows and the JSON API sends. An
action is a function from a parsed form to `Done`. Each route carries its permission; what names none is for
administrators.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any
from urllib.parse import urlencode

from flowstone.app.flow import FlowStone
from flowstone.app.insights import InsightsView
from flowstone.errors import DefinitionError
from flowstone.web.fields import NoFields, as_text


class Role(IntEnum):
    """What a person may do; each role may do what those below it may.

    Example:
        >>> Role.VIEWER < Role.APPROVER < Role.OPERATOR < Role.ADMIN
        True
        >>> Role.of("operator").label
        'operator'
    """

    VIEWER = 1
    APPROVER = 2
    OPERATOR = 3
    ADMIN = 4

    @property
    def label(self) -> str:
        """Its name as people write it."""
        return self.name.lower()

    @classmethod
    def of(cls, name: str) -> Role:
        """Return the role of a name.

        Raises:
            ValueError: there is no such role; lists them.
        """
        found = cls.__members__.get(str(name).strip().upper())
        if found is None:
            raise ValueError(f"role {name!r} is none of {', '.join(one.label for one in cls)}")
        return found


@dataclass(frozen=True, slots=True)
class Person:
    """Who sends a request.

    Args:
        name: under which actions are recorded.
        role: what this person may do.
    """

    name: str
    role: Role = Role.VIEWER


@dataclass(frozen=True, slots=True)
class PageRequest[Query]:
    """What the function of a page works with.

    Args:
        flow: the app; a page only reads, in one read-only transaction.
        query: parsed from the URL.
        person: who asks.
        now: when.
        reading: the insights of a snapshot on a connection that only reads; None for those of the app.
    """

    flow: FlowStone
    query: Query
    person: Person
    now: datetime
    reading: InsightsView | None = None

    @property
    def insights(self) -> InsightsView:
        """The questions that pages, the command line and the JSON API share."""
        return self.reading or self.flow.insights


@dataclass(frozen=True, slots=True)
class ActionCall[Form]:
    """What the function of an action works with.

    Args:
        flow: the app; whatever is called on it is recorded as requested by the person.
        form: parsed from the form, or from the body of JSON.
        person: who does it.
        now: when.
    """

    flow: FlowStone
    form: Form
    person: Person
    now: datetime


@dataclass(frozen=True, slots=True)
class Done:
    """What an action came to.

    Args:
        message: a sentence for the person, such as "Cancelled run r1.".
        location: where to go next, as `url(...)` gives it; None to go back.
        result: what the JSON API answers besides the message; a frozen dataclass or None.
    """

    message: str
    location: str | None = None
    result: object = None


@dataclass(frozen=True, slots=True)
class Confirm:
    """What a person is asked before an action is done.

    Args:
        question: such as "Cancel run r1?".
        button: what the button says; a verb.
        details: what will happen, a sentence each.
        form: the form to send instead, such as one that carries the count that was shown; None for the same.
        danger: whether something is lost.
        asks: fields of the form that the person fills in: name, label, and whether it must not be empty.
    """

    question: str
    button: str = "Do it"
    details: tuple[str, ...] = ()
    form: object = None
    danger: bool = False
    asks: tuple[tuple[str, str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class PlainFile:
    """What a page may return instead of its model: text that a browser stores as a file.

    Args:
        name: of the file; never taken from a request.
        text: what is in it.
    """

    name: str
    text: str


type PageFunction = Callable[[PageRequest[Any]], Any]
type ActionFunction = Callable[[ActionCall[Any]], Done]
type ConfirmFunction = Callable[[ActionCall[Any]], Confirm]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page, and its twin in the JSON API; see `page` for the arguments."""

    path: str
    function: PageFunction
    template: str
    query: type
    role: Role
    title: str
    rail: str | None
    api: str
    personal: bool
    posts: bool
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action; see `action` for the arguments."""

    path: str
    function: ActionFunction
    form: type
    role: Role
    title: str
    confirm: ConfirmFunction | None
    audit: bool


_pages: dict[str, Page] = {}
_actions: dict[str, Action] = {}
_PATH = re.compile(r"/(?:[a-z][a-z-]*(?:/[a-z][a-z-]*)*)?")


def page[F: PageFunction](
    path: str,
    *,
    template: str,
    title: str,
    query: type = NoFields,
    role: Role = Role.ADMIN,
    rail: str | None = None,
    api: str | None = None,
    personal: bool = False,
    posts: bool = False,
    topics: tuple[str, ...] = (),
) -> Callable[[F], F]:
    """Register a page: `GET path` is the template with the model, `GET /api/v1/...` the model as JSON.

    Args:
        path: such as "/runs"; names and partitions are fields of the query, never parts of a path.
        template: a file of `web/templates` that extends `base.html`; the model is `model` there.
        title: of the page, and of its operation in the API.
        query: a frozen dataclass; its fields are all that the URL may carry.
        role: who may see it.
        rail: the entry of the left rail that is marked, such as "Runs".
        api: path of the twin below `/api/v1`; the same path by default.
        personal: whether the model depends on the person, not only on the role.
        posts: whether its fields may come by POST too, for what must not stand in an address; it changes nothing.
            A model with the attribute `refused` that is true is answered with status 422.
        topics: what it is about, of `runs`, `steps`, `queues`, `approvals`, `automations`, `workers`, `audit`,
            `logs`: it is read again when that changes; by default whatever changes but `logs`.

    Raises:
        DefinitionError: the path is taken, or is none.
    """

    def decorate(function: F) -> F:
        _check(path)
        twin = api or (path if path != "/" else "/overview")
        _pages[path] = Page(
            path=path,
            function=function,
            template=template,
            query=query,
            role=role,
            title=title,
            rail=rail,
            api=twin,
            personal=personal,
            posts=posts,
            topics=topics,
        )
        return function

    return decorate


def action[F: ActionFunction](
    path: str,
    *,
    title: str,
    form: type = NoFields,
    role: Role = Role.ADMIN,
    confirm: ConfirmFunction | None = None,
    audit: bool = True,
) -> Callable[[F], F]:
    """Register an action: `POST path` takes a form, `POST /api/v1/...` the same fields as JSON.

    `GET path` with the fields is the page that asks for confirmation; it changes nothing.

    Args:
        path: such as "/runs/cancel".
        title: what it does, such as "Cancel a run".
        form: a frozen dataclass; its fields are all that may be sent.
        role: who may do it.
        confirm: what to ask before; by default the title as a question.
        audit: whether the verb writes a line of the audit log; False only where nothing of the app changes.

    Raises:
        DefinitionError: the path is taken, or is none.
    """

    def decorate(function: F) -> F:
        _check(path)
        _actions[path] = Action(
            path=path, function=function, form=form, role=role, title=title, confirm=confirm, audit=audit
        )
        return function

    return decorate


def _check(path: str) -> None:
    if not _PATH.fullmatch(path) or path.startswith("/api"):
        raise DefinitionError(f"{path!r} is no path of a page: write /word or /word/word in small letters.")
    if path in _pages or path in _actions:
        raise DefinitionError(f"{path!r} is declared twice; a path has one function.")


def pages() -> Mapping[str, Page]:
    """Return every page by its path."""
    _load()
    return _pages


def actions() -> Mapping[str, Action]:
    """Return every action by its path."""
    _load()
    return _actions


@functools.cache
def _load() -> None:
    """Import the modules of `web/pages`, whose decorators fill the registry; they are looked for once."""
    package = importlib.import_module("flowstone.web.pages")
    for module in pkgutil.iter_modules(package.__path__, "flowstone.web.pages."):
        importlib.import_module(module.name)


def url(name: str, /, **query: object) -> str:
    """Return the address of a page below the prefix of the dashboard, which is added when it is written.

    Args:
        name: path of the page, with or without the slash.
        **query: fields of its query; None and empty tuples are left out, other tuples are repeated.

    Example:
        >>> url("run", id="r1"), url("/")
        ('/run?id=r1', '/')
        >>> url("asset", name="a b")
        '/asset?name=a+b'
        >>> url("partition", asset="a/b?", partition="2024-01-01")
        '/partition?asset=a%2Fb%3F&partition=2024-01-01'
    """
    pairs = [
        (field.rstrip("_"), as_text(one))
        for field, value in query.items()
        if value is not None
        for one in (value if isinstance(value, tuple | list) else (value,))
    ]
    path = "/" + name.lstrip("/")
    return f"{path}?{urlencode(pairs)}" if pairs else path
