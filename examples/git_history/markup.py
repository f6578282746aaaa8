"""The one way by which text reaches the page."""

from __future__ import annotations

import html

from git_history.text import display


def escape(text: str, *, limit: int = 120) -> str:
    """Make stored text ready for HTML or SVG, inside elements and quoted attributes.

    Args:
        text: what `to_text` returned, or text of our own.
        limit: longest text shown, in characters.

    Example:
        >>> escape("<script>")
        '&lt;script&gt;'
    """
    return html.escape(display(text, limit=limit), quote=True)


def isolated(text: str, *, limit: int = 120) -> str:
    """Escape text from outside and keep its writing direction to itself; the rest is in the tooltip.

    Args:
        text: what `to_text` returned.
        limit: longest text shown, in characters.

    Example:
        >>> isolated("a&b")
        '<bdi>a&amp;b</bdi>'
    """
    shown = escape(text, limit=limit)
    full = escape(text, limit=600)
    return f"<bdi>{shown}</bdi>" if shown == full else f'<bdi title="{full}">{shown}</bdi>'
