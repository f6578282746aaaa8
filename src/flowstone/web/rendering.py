"""From a view model to HTML: the environment of the templates, and what they may use.

Everything is escaped; nothing marks text as safe. A template gets its model, who reads it, and the names of
`Frame.names`; the macros of `parts.html` are `parts` everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flowstone.core.state import State
from flowstone.engine.insights.asset_list import term
from flowstone.web import charts, fleet_charts, shown
from flowstone.web.fields import NoFields, as_text, pairs_of, plain
from flowstone.web.gantt import gantt, gantt_rows
from flowstone.web.graph_drawing import graph_picture
from flowstone.web.heatmap import heatmap
from flowstone.web.registry import Person, Role, url
from flowstone.web.static_files import static_path
from flowstone.web.svg import shortened

_TEMPLATES = Path(__file__).parent / "templates"
PERSON = "\ufdd0person\ufdd0"
"""Stands for the name of the person in rendered pages, which are shared by all with one role."""
RAIL = (
    ("Overview", "/"),
    ("Assets", "/assets"),
    ("Runs", "/runs"),
    ("Queues", "/queues"),
    ("Automation", "/automation"),
    ("Approvals", "/approvals"),
    ("Notifications", "/notifications"),
    ("Audit", "/audit"),
    ("System", "/system"),
)
THEMES = ("system", "light", "dark")


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a person chose for this browser.

    Args:
        theme: one of `THEMES`.
        zone: in which times are shown; None when nothing was chosen yet, then UTC.
        shortcuts: whether single keys do something.
    """

    theme: str = "system"
    zone: str | None = None
    shortcuts: bool = True

    @classmethod
    def of(cls, cookies: Mapping[str, str]) -> Preferences:
        """Read them from the cookies; what cannot be read is as by default.

        Example:
            >>> Preferences.of({"flowstone_theme": "dark", "flowstone_zone": "../x"})
            Preferences(theme='dark', zone=None, shortcuts=True)
        """
        theme, zone = cookies.get("flowstone_theme"), cookies.get("flowstone_zone", "").replace("%2F", "/")
        return cls(
            theme=theme if theme in THEMES else "system",
            zone=zone if zone in shown.zones() else None,
            shortcuts=cookies.get("flowstone_shortcuts") != "off",
        )


@dataclass(frozen=True, slots=True)
class Notice:
    """A line of the strip below the top bar: something is wrong with the whole.

    Args:
        text: a sentence.
        tone: `bad` or `warn`.
        href: where to read more, as `url(...)` gives it.
    """

    text: str
    tone: str = "warn"
    href: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What surrounds every page.

    Args:
        prefix: where the dashboard is mounted, without a slash at its end.
        path: of this page, below the prefix.
        title: of this page.
        rail: the marked entry of the left rail.
        topics: what the page is about; empty for everything.
        live: whether it is read again when something changed.
        query: as it was parsed.
        role: of the reader; None for nobody.
        allowed: the paths of the actions that the role may do here.
        rails: the paths of the pages that the role may see.
        preferences: of the reader's browser.
        now: when it is rendered.
        app: how the app is called, shown beside the name of the program.
        approvals: how many wait for a decision; None when it is not known.
        notices: of the strip.
        message: what the last action came to.
        can_leave: whether there is a session that can be ended.
        version: of FlowStone.
    """

    prefix: str
    path: str
    title: str
    rail: str | None = None
    topics: tuple[str, ...] = ()
    live: bool = False
    query: object = field(default_factory=NoFields)
    role: Role | None = None
    allowed: frozenset[str] = frozenset()
    rails: frozenset[str] = frozenset()
    preferences: Preferences = field(default_factory=Preferences)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    app: str = ""
    approvals: int | None = None
    notices: tuple[Notice, ...] = ()
    message: str = ""
    can_leave: bool = False
    version: str = ""

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which times are shown."""
        return shown.zone_of(self.preferences.zone)

    def url(self, name: str, /, **query: object) -> str:
        """Return the address of a page, with the prefix.

        Example:
            >>> Frame(prefix="/ops", path="/", title="x").url("run", id=5)
            '/ops/run?id=5'
        """
        return self.prefix + url(name, **query)

    def to(self, location: str) -> str:
        """Return a place that `url(...)` made in Python, with the prefix."""
        return self.prefix + "/" + location.lstrip("/")

    def here(self, /, **changes: object) -> str:
        """Return the address of this page with some fields of its query changed; None leaves a field out.

        Example:
            >>> @dataclass(frozen=True)
            ... class Query:
            ...     state: str = ""
            ...     next: str | None = None
            >>> Frame(prefix="", path="/runs", title="x", query=Query(state="failed")).here(next="abc")
            '/runs?state=failed&next=abc'
        """
        pairs: dict[str, object] = {}
        for name, value in pairs_of(self.query):
            pairs[name] = (*pairs[name], value) if name in pairs else (value,)  # type: ignore[misc]
        pairs.update({name: value for name, value in changes.items() if value is not None})
        for name in changes:
            if changes[name] is None:
                pairs.pop(name, None)
        return self.url(self.path, **pairs)

    def can(self, path: str) -> bool:
        """Whether the reader may do an action here.

        Example:
            >>> Frame(prefix="", path="/", title="x", allowed=frozenset({"/runs/cancel"})).can("runs/cancel")
            True
        """
        return "/" + path.lstrip("/") in self.allowed

    def names(self) -> dict[str, Any]:
        """Return what a template may use by name."""
        return {
            "frame": self,
            "url": self.url,
            "to": self.to,
            "here": self.here,
            "can": self.can,
            "now": self.now,
            "zone": self.zone,
            "query": self.query,
            "rail": [(name, self.url(path), path) for name, path in RAIL if path in self.rails],
        }


def render(template: str, frame: Frame, **names: object) -> str:
    """Return a page; the name of the person is still `PERSON` in it.

    Args:
        template: a file of `web/templates`.
        frame: what surrounds it.
        **names: what it shows.
    """
    environment = _environment()
    context = {**frame.names(), **names}
    # the macros read who may do what, and the zone, from the same context
    context["parts"] = environment.get_template("parts.html").make_module(context)
    return environment.get_template(template).render(context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        auto_reload=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_secrets,
    )
    environment.globals.update(static=static_path, State=State, person=PERSON, themes=THEMES, zones=shown.zones)
    drawings = {
        "strip": charts.strip,
        "bars": charts.bars,
        "plot": charts.plot,
        "gantt": gantt,
        "heatmap": heatmap,
        "throughput": fleet_charts.throughput,
        "waiting": fleet_charts.waiting,
    }
    environment.globals.update(drawings, graph_picture=graph_picture, gantt_rows=gantt_rows, shown=shown)
    filters: dict[str, Callable[..., Any]] = {
        "duration": shown.duration,
        "seconds": shown.seconds_of,
        "short_time": shown.short_time,
        "full_time": shown.full_time,
        "offset": shown.offset,
        "place": shown.place,
        "ago": shown.ago,
        "count": shown.count,
        "size": shown.size,
        "glyph": shown.glyph,
        "tone": shown.tone,
        "spelled": shown.words,
        "term": term,
        "tojson_text": lambda value: json.dumps(plain(value), ensure_ascii=False, separators=(",", ":")),
        "shortened": shortened,
        "as_text": as_text,
        "pairs": pairs_of,
        "web_address": shown.web_address,
    }
    environment.filters.update(filters)
    return environment


def _without_secrets(value: object) -> object:
    """Mask secrets in each text that a template prints; markup of macros and of charts was made of such texts."""
    return shown.masked(value) if type(value) is str else value


def person_named(page: str, person: Person | None) -> str:
    """Put the name of a person into a rendered page.

    Example:
        >>> person_named(f"<b>{PERSON}</b>", Person("<ann>"))
        '<b>&lt;ann&gt;</b>'
    """
    name = person.name if person else ""
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        name = name.replace(sign, entity)
    return page.replace(PERSON, name)
