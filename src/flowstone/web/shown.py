"""How values are written for people: times with their zone, durations, numbers, states.

What is here has no markup; the macros of `parts.html` put it into elements.
"""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from flowstone.core.clean import mask_secrets
from flowstone.core.state import State

_WEB_ADDRESS = re.compile(r"https?://[^\s<>\"'\\]{1,2000}")

# state: glyph, class; the word is the state itself, so that colour and shape are never alone
_STATES: dict[str, tuple[str, str]] = {
    State.COMPLETED: ("✓", "good"),
    State.REUSED: ("↺", "good"),
    State.FAILED: ("✕", "bad"),
    State.UPSTREAM_FAILED: ("⤫", "bad"),
    State.CANCELLED: ("⊘", "off"),
    State.CANCELLING: ("⊘", "warn"),
    State.SKIPPED: ("⇥", "off"),
    State.RETRYING: ("↻", "warn"),
    State.AWAITING_APPROVAL: ("?", "warn"),
    State.RUNNING: ("▶", "busy"),
    "ok": ("✓", "good"),
    "passed": ("✓", "good"),
    "approved": ("✓", "good"),
    "committed": ("✓", "good"),
    "current": ("✓", "good"),
    "restored": ("⟲", "good"),
    "earlier": ("·", "off"),
    "invalidated": ("⊘", "warn"),
    "erased": ("⌫", "off"),
    "warn": ("!", "warn"),
    "warning": ("!", "warn"),
    "stale": ("~", "warn"),
    "paused": ("‖", "warn"),
    "open": ("!", "bad"),
    "fail": ("✕", "bad"),
    "error": ("✕", "bad"),
    "lost": ("✕", "bad"),
    "unserved": ("✕", "bad"),
    "late": ("!", "warn"),
    "full": ("■", "warn"),
    "alive": ("✓", "good"),
    "moving": ("▶", "busy"),
    "rejected": ("✕", "bad"),
    "expired": ("⊘", "bad"),
    "active": ("▶", "busy"),
    "partial": ("◐", "warn"),
    "failing": ("✕", "bad"),
    "requested": ("✓", "good"),
    "new": ("·", "idle"),
    "sent": ("✓", "good"),
    "given_up": ("✕", "bad"),
}


@cache
def zones() -> tuple[str, ...]:
    """Return the names of all time zones, UTC first."""
    return ("UTC", *sorted(name for name in available_timezones() if "/" in name and not name.startswith("Etc/")))


def zone_of(name: str | None) -> ZoneInfo:
    """Return a time zone by its name; UTC for anything that is none.

    Example:
        >>> zone_of("Asia/Kathmandu").key, zone_of("../../etc/passwd").key
        ('Asia/Kathmandu', 'UTC')
    """
    return ZoneInfo(name if name in zones() else "UTC")


def offset(at: datetime) -> str:
    """Return the offset of a time from UTC.

    Example:
        >>> offset(datetime(2024, 7, 1, tzinfo=ZoneInfo("America/St_Johns")))
        '-02:30'
    """
    text = at.strftime("%z")
    return f"{text[:3]}:{text[3:5]}" if text else "+00:00"


def short_time(at: datetime, zone: ZoneInfo, now: datetime) -> str:
    """Return a time in a zone: without the date when it is today, with the offset in an hour that occurs twice.

    Example:
        >>> from datetime import UTC
        >>> now = datetime(2024, 10, 27, 12, tzinfo=UTC)
        >>> berlin = ZoneInfo("Europe/Berlin")
        >>> short_time(datetime(2024, 10, 27, 0, 30, tzinfo=UTC), berlin, now)
        '02:30:00 +02:00'
        >>> short_time(datetime(2024, 10, 26, 0, 30, tzinfo=UTC), berlin, now)
        '2024-10-26 02:30'
    """
    local = at.astimezone(zone)
    text = local.strftime("%H:%M:%S" if local.date() == now.astimezone(zone).date() else "%Y-%m-%d %H:%M")
    twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
    return f"{text} {offset(local)}" if twice else text


def full_time(at: datetime, zone: ZoneInfo) -> str:
    """Return a time in a zone to the millisecond, with the zone.

    Example:
        >>> from datetime import UTC
        >>> full_time(datetime(2024, 1, 1, tzinfo=UTC), ZoneInfo("Asia/Kathmandu"))
        '2024-01-01 05:45:00.000 +05:45 (Asia/Kathmandu)'
    """
    local = at.astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03} {offset(local)} ({zone.key})"


def seconds_of(value: float | timedelta | None) -> float | None:
    """Return a duration in seconds, never below 0: clocks of two machines differ."""
    if value is None:
        return None
    return max(0.0, value.total_seconds() if isinstance(value, timedelta) else float(value))


def duration(value: float | timedelta | None) -> str:
    """Return a duration for people; nothing for None, never a negative one.

    Example:
        >>> duration(0.0123), duration(4.56), duration(3700), duration(30 * 86400), duration(-5), duration(None)
        ('12 ms', '4.6 s', '1 h 1 min', '30 days', '0 ms', '')
    """
    seconds = seconds_of(value)
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24:,} days"


def ago(at: datetime, now: datetime) -> str:
    """Return how long ago a time was, or how far it is.

    Example:
        >>> from datetime import UTC
        >>> ago(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 2, tzinfo=UTC))
        '2 h ago'
        >>> ago(datetime(2024, 1, 1, 0, 5, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC))
        'in 5 min'
    """
    seconds = (now - at).total_seconds()
    text = coarse(abs(seconds))
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def coarse(seconds: float) -> str:
    """Return a duration with one unit.

    Example:
        >>> coarse(59), coarse(3599), coarse(90_000)
        ('59 s', '59 min', '25 h')
    """
    for unit, size, until in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds // 86_400):,} days"


def count(value: float | None) -> str:
    """Return a number with separators; nothing for None.

    Example:
        >>> count(1204), count(0.5), count(None)
        ('1,204', '0.5', '')
    """
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def size(value: int | None) -> str:
    """Return a number of bytes for people.

    Example:
        >>> size(512), size(2_500_000)
        ('512 B', '2.4 MiB')
    """
    if value is None:
        return ""
    left = float(max(0, value))
    for unit in ("B", "KiB", "MiB", "GiB"):
        if left < 1024:
            return f"{left:.0f} B" if unit == "B" else f"{left:.1f} {unit}"
        left /= 1024
    return f"{left:,.1f} TiB"


def glyph(state: str) -> str:
    """Return the sign of a state."""
    return _STATES.get(state, ("○", "idle"))[0]


def tone(state: str) -> str:
    """Return the class of a state: good, bad, warn, busy, off or idle.

    Example:
        >>> tone(State.FAILED), tone("stale"), tone("pending")
        ('bad', 'warn', 'idle')
    """
    return _STATES.get(state, ("○", "idle"))[1]


def masked(text: str) -> str:
    """Return text without secrets; what was shown a moment ago is not searched again.

    Example:
        >>> masked("postgresql://me:hunter2@db")
        'postgresql://me:***@db'
    """
    # what is secret may become known later, so that what is remembered counts for a few seconds only
    return _masked(text, int(time.monotonic() / 5)) if len(text) > 3 else text


@lru_cache(maxsize=8192)
def _masked(text: str, _moment: int) -> str:
    return mask_secrets(text)


def words(name: str) -> str:
    """Return a name of code as words.

    Example:
        >>> words("upstream_failed")
        'upstream failed'
    """
    return name.replace("_", " ")


def web_address(value: object) -> str:
    """Return a recorded text if it is an address of the web, which a page may link to; else "".

    Example:
        >>> web_address("https://example.com/report?day=1"), web_address("javascript:alert(1)"), web_address(7)
        ('https://example.com/report?day=1', '', '')
    """
    return value if isinstance(value, str) and _WEB_ADDRESS.fullmatch(value) else ""


def place(where: str) -> str:
    """Return file and line of a declaration, from the directory in which this process was started.

    Example:
        >>> place(f"{Path.cwd()}/shop/assets.py:12"), place("/usr/lib/shop.py:3")
        ('shop/assets.py:12', '/usr/lib/shop.py:3')
    """
    return where.removeprefix(f"{Path.cwd()}/")
