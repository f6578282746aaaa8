"""Which runs are meant: one filter, and one way to write it, for the command line, URLs and pages.

`state:failed -kind:backfill asset:orders since:24h`: words of a field and a value. Words of one field say any of
them, different fields say all of them, a minus in front says none of them. A value with spaces stands in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from flowstone.core.actor import AUTOMATION
from flowstone.core.declaring import is_storable, shown
from flowstone.core.step import RunRecord
from flowstone.errors import OptionsError, did_you_mean

ANY = "*"
"""Stands for any value, of the fields that a run may have no value of: `-automation:*`."""
PAUSED = "paused"
RUN_STATES = ("running", PAUSED, "completed", "failed", "cancelled")
_LISTED = ("state", "kind", "asset", "automation", "by", "tag")
_TIMES = ("since", "until")
_OPPOSITE = {"since": "until", "until": "since"}
_FIELDS = (*_LISTED, *_TIMES, "items_of")
_MAX_WORDS = 50
_MAX_VALUE = 2000
_WORD = re.compile(r'(?P<no>-?)(?P<field>[a-z_]+):(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s"]+))(?=\s|$)')
_AGE = re.compile(r"(\d{1,6})(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PLAIN = re.compile(r'[^\s"]+')


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs are meant. Empty fields leave everything open.

    Args:
        state: `running` (also while paused), `paused`, `completed`, `failed`, `cancelled`.
        kind: the verb that asked, such as `backfill`.
        asset: an asset that was asked for.
        automation: the schedule, sensor or condition that asked; `*` for any.
        by: the person or program that asked; `*` for any.
        tag: a tag of the run.
        not_state: none of these states; the other `not_` fields likewise.
        since: not placed before: an age (`24h`, `7d`), or an ISO time.
        until: placed before.
        items_of: runs of the items that steps of this run scattered, which are left out otherwise.

    Raises:
        OptionsError: a value is none that the field can have.

    Example:
        >>> found = RunFilter.parse('state:failed -kind:backfill asset:"my orders" since:24h')
        >>> found.state, found.not_kind, found.asset
        (('failed',), ('backfill',), ('my orders',))
        >>> str(found)
        'state:failed -kind:backfill asset:"my orders" since:24h'
    """

    state: tuple[str, ...] = ()
    not_state: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    not_kind: tuple[str, ...] = ()
    asset: tuple[str, ...] = ()
    not_asset: tuple[str, ...] = ()
    automation: tuple[str, ...] = ()
    not_automation: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    not_by: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    not_tag: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    items_of: str | None = None

    def __post_init__(self) -> None:
        for name in _LISTED:
            for field in (name, f"not_{name}"):
                object.__setattr__(self, field, _values_of(field, getattr(self, field)))
        if self.items_of is not None:
            object.__setattr__(self, "items_of", *_values_of("items_of", (self.items_of,)))
        for state in (*self.state, *self.not_state):
            if state not in RUN_STATES:
                meant = did_you_mean(state, RUN_STATES) or f" States are {', '.join(RUN_STATES)}."
                raise OptionsError(f"state:{state} is no state of a run.{meant}")
        for name in _TIMES:
            text = getattr(self, name)
            if text is None:
                continue
            if not isinstance(text, str):
                raise OptionsError(
                    f"{name}={shown(text)}: give text, such as '24h' or '2024-01-05T12:00:00+01:00'; a datetime "
                    "has isoformat()."
                )
            _time_of(name, text, datetime(2000, 1, 1, tzinfo=UTC))

    @classmethod
    def of(cls, given: RunFilter | str) -> RunFilter:
        """Return a filter, or the one that a text stands for.

        Raises:
            OptionsError: it is neither, or cannot be read.
        """
        if isinstance(given, RunFilter):
            return given
        text: object = given
        if not isinstance(text, str):
            raise OptionsError(f"filter={shown(text)}: give a RunFilter, or a text such as 'asset:orders'.")
        return cls.parse(text)

    @classmethod
    def parse(cls, text: str | Iterable[str]) -> RunFilter:
        """Read a filter as people write it; the empty text means all runs.

        Args:
            text: words, or a list of them as a shell has split them: then a value needs no quotes.

        Raises:
            OptionsError: says which word cannot be read, and what may stand there.

        Example:
            >>> RunFilter.parse(["tag:month end"]) == RunFilter.parse('tag:"month end"')
            True
            >>> RunFilter.parse("stat:failed")
            Traceback (most recent call last):
            flowstone.errors.OptionsError: 'stat' is no filter of runs. Did you mean 'state'?
        """
        found: dict[str, list[str]] = {}
        given: object = text
        if not isinstance(given, Iterable):
            raise OptionsError(f"filter={shown(given)}: give a text such as 'asset:orders', or a list of words.")
        words = list(_words(text) if isinstance(text, str) else map(_split_word, text))
        if len(words) > _MAX_WORDS:
            raise OptionsError(f"{len(words)} words are more than a filter may have ({_MAX_WORDS}).")
        for is_not, name, value in words:
            if name not in _FIELDS:
                meant = did_you_mean(name, _FIELDS) or f" Fields are {', '.join(_FIELDS)}."
                raise OptionsError(f"{name!r} is no filter of runs.{meant}")
            _values_of(name, (value,))
            if name == "items_of" and is_not:
                raise OptionsError("-items_of: items are left out anyway, unless items_of:RUN asks for them.")
            # not since then: until then
            key = _OPPOSITE.get(name, f"not_{name}") if is_not else name
            found.setdefault(key, []).append(value)
        for name in (*_TIMES, "items_of"):
            if len(found.get(name, ())) > 1:
                raise OptionsError(f"{name}: is given twice; leave one of them out.")
        lists = {name: tuple(dict.fromkeys(values)) for name, values in found.items()}
        single = {name: lists.pop(name)[0] for name in (*_TIMES, "items_of") if name in lists}
        return cls(**lists, **single)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return " ".join(self.words())

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))

    def words(self) -> Iterator[str]:
        """Yield the words of the filter, in one order for equal filters."""
        for name in _LISTED:
            for prefix, values in (("", getattr(self, name)), ("-", getattr(self, f"not_{name}"))):
                yield from (f"{prefix}{name}:{_quoted(value)}" for value in values)
        for name in (*_TIMES, "items_of"):
            if (text := getattr(self, name)) is not None:
                yield f"{name}:{_quoted(text)}"

    def at(self, now: datetime) -> RunFilter:
        """Return the same with ages turned into times: what it means now, and later still.

        Example:
            >>> str(RunFilter(since="24h").at(datetime(2024, 1, 2, tzinfo=UTC)))
            'since:2024-01-01T00:00:00+00:00'
        """
        since, until = (None if one is None else one.isoformat() for one in self.times(now))
        return replace(self, since=since, until=until)

    def times(self, now: datetime) -> tuple[datetime | None, datetime | None]:
        """Return since when and until when runs are meant.

        Args:
            now: the present, for ages.
        """
        since = None if self.since is None else _time_of("since", self.since, now)
        until = None if self.until is None else _time_of("until", self.until, now)
        return since, until

    def matches(self, run: RunRecord, now: datetime) -> bool:
        """Return whether a run is meant; what a store without SQL goes by."""
        since, until = self.times(now)
        is_paused = run.paused and not run.state.is_terminal
        states = {run.state.value if run.state.is_terminal else "running", *([PAUSED] if is_paused else [])}
        by_automation = run.requested_via == AUTOMATION
        automation = {run.requested_by or "", ANY} if by_automation else set()
        person = {run.requested_by, ANY} if run.requested_by is not None and not by_automation else set()
        return (
            _fits(states, self.state, self.not_state)
            and _fits({run.kind}, self.kind, self.not_kind)
            and _fits(set(run.assets), self.asset, self.not_asset)
            and _fits(automation, self.automation, self.not_automation)
            and _fits(person, self.by, self.not_by)
            and _fits(set(run.tags), self.tag, self.not_tag)
            and (since is None or run.created_at >= since)
            and (until is None or run.created_at < until)
            and run.parent == self.items_of
        )


def _fits(found: Collection[str | None], requested: Collection[str], refused: Collection[str]) -> bool:
    return (not requested or not found.isdisjoint(requested)) and found.isdisjoint(refused)  # type: ignore[attr-defined]


def _words(text: str) -> Iterator[tuple[bool, str, str]]:
    rest = text.strip()
    while rest:
        found = _WORD.match(rest)
        if found is None:
            _refuse(rest.split()[0])
        quoted = found["quoted"]
        value = found["plain"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        yield found["no"] == "-", found["field"], value
        rest = rest[found.end() :].lstrip()


def _split_word(word: object) -> tuple[bool, str, str]:
    if not isinstance(word, str):
        raise OptionsError(f"filter=[{shown(word)}]: give words, such as 'asset:orders'.")
    name, colon, value = word.partition(":")
    if not colon or not re.fullmatch(r"-?[a-z_]+", name):
        _refuse(word)
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return name[0] == "-", name.removeprefix("-"), value


def _values_of(field: str, given: object) -> tuple[str, ...]:
    """Return the values of a field, each of them a text that a run can have."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise OptionsError(f"{field}={shown(given)}: give a list of texts, such as [{shown(given)}].")
    values = []
    for value in given:
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_VALUE or not is_storable(value):
            raise OptionsError(
                f"{field}: {shown(value)} is none; give 1 to {_MAX_VALUE:,} characters of plain text."
            )
        values.append(str.__str__(value))  # that of a member of an enumeration may be its name
    return tuple(values)


def _refuse(word: str) -> NoReturn:
    """Say how a word has to be written.

    Raises:
        OptionsError: always.
    """
    shown = word[:60]
    known = ", ".join(f"{name}:" for name in _FIELDS)
    raise OptionsError(
        f"{shown!r} is no word of a filter: write field:value, such as state:failed, with a minus in front for "
        f'"not" and quotes around a value with spaces. Fields are {known}.'
    )


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _time_of(name: str, text: str, now: datetime) -> datetime:
    """Return the time that an age or an ISO text stands for; a day is its start in UTC.

    Raises:
        OptionsError: it is neither.
    """
    age = _AGE.fullmatch(text)
    try:
        if age is not None:
            return now - timedelta(seconds=int(age[1]) * _SECONDS[age[2]])
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise OptionsError(
            f"{name}:{text[:60]} is no time: write an age, such as 90m, 24h, 7d, or an ISO time, such as "
            "2024-01-31 or 2024-01-31T09:00+01:00."
        ) from None
