"""What is wrong with a page, read as a browser reads it: nesting, ids, labels, headings, what the policy refuses.

`Document` is the outcome of parsing; `faults` lists what must not be in any page of the dashboard.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset(
    ["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"]
)
# what ends an open paragraph without its end tag
BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "details",
        "div",
        "dl",
        "fieldset",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "ul",
    ]
)
INTERACTIVE = frozenset(["a", "button", "select", "textarea", "label"])
REFERENCES = ("aria-labelledby", "aria-describedby", "aria-controls", "aria-owns", "for", "list", "headers")
LABELLED = frozenset(["input", "select", "textarea"])


@dataclass(slots=True)
class Element:
    """One element.

    Args:
        tag: its name.
        attributes: as they are written.
        parent: around it.
        line: where it begins.
    """

    tag: str
    attributes: dict[str, str]
    parent: Element | None
    line: int
    text: list[str] = field(default_factory=list)
    children: list[Element] = field(default_factory=list)

    def within(self, *tags: str) -> Element | None:
        """Return the closest element of these around it."""
        found = self.parent
        while found is not None and found.tag not in tags:
            found = found.parent
        return found

    def words(self) -> str:
        """Return the text in it, with what stands for pictures."""
        parts = [*self.text, self.attributes.get("aria-label", ""), self.attributes.get("alt", "")]
        return " ".join(" ".join([*parts, *(child.words() for child in self.children)]).split())

    def __str__(self) -> str:
        shown = "".join(f' {name}="{value[:60]}"' for name, value in list(self.attributes.items())[:4])
        return f"<{self.tag}{shown}> in line {self.line}"


class Document(HTMLParser):
    """A parsed page.

    Args:
        text: the page.
    """

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.faults: list[str] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        self.faults += [f"{one} is never closed" for one in self._open]

    def all(self, *tags: str) -> list[Element]:
        """Return the elements of these tags."""
        return [one for one in self.elements if one.tag in tags]

    def links(self) -> list[str]:
        """Return where its links lead, fragments apart."""
        found = [one.attributes.get("href", "") for one in self.all("a")]
        return [href.partition("#")[0] for href in found if href.partition("#")[0]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        self.faults += [f"<{tag}> has {name} twice" for name in {n for n in names if names.count(n) > 1}]
        parent = self._open[-1] if self._open else None
        element = Element(tag, {name: value or "" for name, value in attrs}, parent, self.getpos()[0])
        if parent is not None:
            parent.children.append(element)
            if tag in BLOCKS and (parent.tag == "p" or element.within("p")):
                self.faults.append(f"{element} ends the paragraph around it")
            if tag in INTERACTIVE and tag != "label" and element.within("a", "button"):
                self.faults.append(f"{element} lies in a link or a button")
            if tag == "form" and element.within("form"):
                self.faults.append(f"{element} lies in another form")
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self._open or self._open[-1].tag != tag:
            within = self._open[-1] if self._open else "nothing"
            self.faults.append(f"</{tag}> in line {self.getpos()[0]} while {within} is open")
            if any(one.tag == tag for one in self._open):
                while self._open.pop().tag != tag:
                    pass
            return
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1].text.append(data)


def faults(text: str) -> list[str]:
    """Return what is wrong with a page."""
    document = Document(text)
    return [
        *document.faults,
        *_identity(document),
        *_policy(document),
        *_named(document),
        *_headings(document),
        *_tables(document),
    ]


def _identity(document: Document) -> list[str]:
    ids = [one.attributes["id"] for one in document.elements if "id" in one.attributes]
    found = [
        f"the id {one!r} occurs {ids.count(one)} times" for one in sorted({i for i in ids if ids.count(i) > 1})
    ]
    for one in document.elements:
        for name in REFERENCES:
            named = one.attributes.get(name, "").split()
            found += [f"{one}: {name} names {each!r}, which is not there" for each in named if each not in ids]
        if "data-live" in one.attributes and one.tag != "html" and "id" not in one.attributes:
            found.append(f"{one} is live and has no id")
    roots = document.all("html")
    if not roots or not roots[0].attributes.get("lang"):
        found.append("the page has no language")
    if not any(one.words() for one in document.all("title")):
        found.append("the page has no title")
    return found


def _policy(document: Document) -> list[str]:
    found = []
    for one in document.elements:
        found += [
            f"{one} has the attribute {name}" for name in one.attributes if name == "style" or name[:2] == "on"
        ]
        if one.tag == "style" or (one.tag == "script" and (not one.attributes.get("src") or one.words())):
            found.append(f"{one} is inline")
        for name in ("href", "src", "action", "formaction"):
            value = one.attributes.get(name, "")
            if value and not value.startswith(("/", "#", "?")):
                found.append(f"{one}: {name} leads out of the dashboard")
            if value.startswith("//"):
                found.append(f"{one}: {name} leads to another host")
    return found


def _named(document: Document) -> list[str]:
    labels = {one.attributes["for"] for one in document.all("label") if "for" in one.attributes}
    found = []
    for one in document.elements:
        kind = one.attributes.get("type", "")
        if one.tag in LABELLED and kind not in ("hidden", "submit", "button"):
            around = one.within("label")
            named = one.attributes.get("aria-label") or one.attributes.get("aria-labelledby")
            if not named and one.attributes.get("id") not in labels and (around is None or not around.words()):
                found.append(f"{one} has no label")
        if one.tag in ("a", "button", "summary") and not one.words() and not one.attributes.get("title"):
            found.append(f"{one} has no words")
        if one.tag == "svg" and one.attributes.get("aria-hidden") != "true":
            titled = [child for child in one.children if child.tag == "title"]
            if not one.attributes.get("aria-label") and not one.attributes.get("aria-labelledby") and not titled:
                found.append(f"{one} has no name and is not hidden")
        if one.tag == "img" and "alt" not in one.attributes:
            found.append(f"{one} has no alt")
    return found


def _headings(document: Document) -> list[str]:
    levels = [(int(one.tag[1]), one) for one in document.all("h1", "h2", "h3", "h4", "h5", "h6")]
    found = [] if sum(level == 1 for level, _ in levels) == 1 else ["there is not exactly one h1"]
    before = 0
    for level, one in levels:
        if level > before + 1:
            found.append(f"{one} follows a heading of level {before}")
        if not one.words():
            found.append(f"{one} is empty")
        before = level
    if len(document.all("main")) != 1:
        found.append("there is not exactly one main")
    return found


def _tables(document: Document) -> list[str]:
    found = []
    for one in document.all("table"):
        heads = [head for head in document.all("th") if head.within("table") is one]
        if not heads:
            found.append(f"{one} has no headings")
    for tags, around in ((("li",), ("ul", "ol", "menu")), (("tr",), ("table",)), (("dt", "dd"), ("dl",))):
        found += [f"{one} lies in no {around[0]}" for one in document.all(*tags) if one.within(*around) is None]
    return found
