"""The one builder of markup in Python: SVG and the tables behind it, escaped by construction.

Templates write HTML; what needs arithmetic (charts, the graph) is made here, of `element(...)` calls. Text
children and attribute values are escaped, whatever they are; only an `Html` that this module made passes as it is.
There is no way to write a handler or a style attribute, and an address can only lead to our own pages, so that the
strictest content security policy holds. Templates print an `Html` as it is (`{{ chart }}`), because it has
`__html__`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from flowstone.web.shown import masked

type Child = str | Html | Iterable[Child] | None
type Attribute = str | float | bool | None

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_REFUSED = ("style", "srcdoc", "action", "formaction", "background", "ping")
_REFUSED_TAGS = (
    "script",
    "style",
    "foreignobject",
    "iframe",
    "object",
    "embed",
    "base",
    "meta",
    "link",
    "animate",
    "set",
)
_ADDRESSES = ("href", "src")
_SCHEME = re.compile(r"[^/?#]*:")
_VOID = ("br", "hr", "img", "input", "col", "wbr")


class Html:
    """Markup that is ready: what `element` returned. A template prints it without escaping it again.

    Example:
        >>> element("b", "1 < 2").__html__()
        '<b>1 &lt; 2</b>'
    """

    __slots__ = ("_text",)

    def __init__(self, text: str, made_by: object = None) -> None:
        if made_by is not _OURS:
            raise TypeError("Html is made by element() and joined() only. Write element('b', text) instead.")
        self._text = text

    def __html__(self) -> str:
        return self._text

    def __str__(self) -> str:
        return self._text

    def __len__(self) -> int:
        return len(self._text)

    def __repr__(self) -> str:
        return f"Html({self._text!r})"


_OURS = object()


def element(tag: str, *children: Child, **attributes: Attribute) -> Html:
    """Make an element of HTML or SVG.

    Args:
        tag: its name. children: texts, which are escaped, and elements; None is left out, and of iterables each
        part is taken. attributes: its attributes; `class_` is written `class`, `stroke_width` is `stroke-width`,
        numbers are written
            short, True is an attribute without a value, and None and False leave it out.

    Returns:
        The element, ready to print.

    Raises:
        ValueError: a tag or an attribute that could run code or carry style, or an address of another site.

    Example:
        >>> str(element("text", "<script>", class_="name", x=1.5, data_key='"'))
        '<text class="name" x="1.5" data-key="&quot;">&lt;script&gt;</text>'
    """
    if tag.lower() in _REFUSED_TAGS or not _NAME.fullmatch(tag):
        raise ValueError(f"An element <{tag}> is not made here: it could run code or carry style.")
    opening = "".join([tag, *(_attribute(name, value) for name, value in attributes.items())])
    if tag in _VOID:
        return Html(f"<{opening}>", _OURS)
    return Html(f"<{opening}>{_inner(children)}</{tag}>", _OURS)


def joined(*children: Child) -> Html:
    """Make markup of several parts without an element around them.

    Example:
        >>> str(joined("a & ", element("b", "c")))
        'a &amp; <b>c</b>'
    """
    return Html(_inner(children), _OURS)


def printable(text: str) -> str:
    """Return a text without secrets, and with what no page can show (control characters) as U+FFFD.

    Example:
        >>> printable("a\\x00b")
        'a\ufffdb'
    """
    return _UNPRINTABLE.sub("\ufffd", masked(text))


def shortened(text: str, limit: int = 40) -> str:
    """Return the beginning and the end of a text that is too long for its place; what differs is often at the end.

    Example:
        >>> shortened("customers_of_all_regions_by_day", 16)
        'customers\u2026by_day'
    """
    if len(text) <= limit:
        return text
    tail = (limit - 1) * 2 // 5
    return f"{text[: limit - 1 - tail]}\u2026{text[-tail:]}"


def _inner(children: Iterable[Child]) -> str:
    return "".join([_text(one) for one in children])


def _text(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child.__html__()
    if isinstance(child, str):
        return escape(printable(child), quote=False)
    return _inner(child)


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    written = name.rstrip("_").replace("_", "-")
    lower = written.lower()
    if lower in _REFUSED or lower.startswith("on") or not _NAME.fullmatch(written):
        raise ValueError(f"The attribute {written!r} is not written here: use a class, or an attribute of SVG.")
    if value is True:
        return f" {written}"
    text = value if isinstance(value, str) else short_float(value)
    if lower in _ADDRESSES and (_SCHEME.match(text) or text.lstrip().startswith(("//", "\\", "/\\"))):
        raise ValueError(f"{text[:80]!r} does not lead to a page of this dashboard.")
    return f' {written}="{escape(printable(text))}"'


def short_float(value: float) -> str:
    """Return a number for an attribute: at most two decimals, and none that say nothing.

    Example:
        >>> short_float(3.14159), short_float(2.0), short_float(-0.001)
        ('3.14', '2', '0')
    """
    if isinstance(value, int):
        return str(value)
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
