"""The documentation site: `sphinx-build -W -b html docs DIRECTORY`.

Beside the pages it writes `llms.txt` (each page with a line about it), `llms-full.txt` (all of them as one text),
and, as every Sphinx site, `objects.inv`. Nothing is fetched, while it is built or when it is read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import flowstone

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "FlowStone"
author = "The FlowStone authors"
project_copyright = author
version = release = flowstone.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header", "misc.highlighting_failure"]  # any level first; templates in SQL

html_theme = "furo"
html_title = f"FlowStone {release}"
html_extra_path = ["flowstone.schema.json"]
html_copy_source = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
myst_url_schemes = ("http", "https", "mailto")

default_role = "literal"  # docstrings have code in single backticks
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

# types in signatures have no page each, and those of the standard library are elsewhere; errors, functions and
# methods that are named have to be there
nitpicky = True
nitpick_ignore_regex = [("py:(class|obj|data)", r".*")]

_OUTSIDE = re.compile(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
_MERMAID = re.compile(r"^```mermaid$", re.MULTILINE)


def _read(app: Any, name: str, source: list[str]) -> None:
    """Have links that leave `docs/` name the file, which a reader finds in the repository."""
    page = HERE / f"{name}.md"
    text = _MERMAID.sub("```text", source[0])
    if name == "index":
        text = _with_all_pages(text)
    if name == "reference/views":
        text = _with_all_views(text)
    if name == "reference/declarations":
        text = _with_all_names(text)

    def link(found: re.Match[str]) -> str:
        target = (page.parent / found[1]).resolve()
        if target.is_relative_to(HERE):
            return found[0]
        if not target.exists():
            raise ValueError(f"{page}: there is no {found[1]}")
        return f"] (`{target.relative_to(ROOT)}`)"

    source[0] = _OUTSIDE.sub(link, text).replace("] (`", "]&#32;(`")


def _with_all_pages(index: str) -> str:
    """Put pages that no list of the index names at the end of the how-to pages, so that none is without a path."""
    named = set(re.findall(r"^[\w/-]+$", index, re.MULTILINE))
    left = sorted(path.stem for path in HERE.glob("*.md") if path.stem not in named | {"index"})
    return index.replace("\nobservability\n", "\n".join(["\nobservability", *left, ""]), 1)


def documented() -> set[str]:
    """Return the names that the pages of the reference document, without their modules."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((HERE / "reference").glob("*.md"))]
    return set(re.findall(r"^\.\. auto\w+:: (?:\w+\.)*(\w+)$", "\n".join(texts), re.MULTILINE))


def left_over() -> list[str]:
    """Return the public names that no page of the reference documents."""
    return sorted(set(flowstone.__all__) - documented() - {"FlowStoneError"})  # which is among the errors


def _with_all_names(declarations: str) -> str:
    """Put public names that no page has at the end of the declarations."""
    left = left_over()
    kinds = {one: "autoclass" if isinstance(getattr(flowstone, one), type) else "autofunction" for one in left}
    directives = "\n".join(f".. {kinds[one]}:: flowstone.{one}" for one in left)
    return f"{declarations}\n## More\n\n```{{eval-rst}}\n{directives}\n```\n" if left else declarations


def _with_all_views(page: str) -> str:
    """Put views that the page does not have at its end."""
    with flowstone.FlowStone.for_testing([]) as flow:
        names = [name for name in dir(flow) if not name.startswith("_") and name != "aio"]
        found = {name: type(getattr(flow, name)) for name in names}
    for name, kind in found.items():
        if kind.__name__.endswith("View") and f"\n## flow.{name}\n" not in page:
            options = "   :members:\n   :inherited-members:\n   :exclude-members: __init__, __new__\n"
            directive = f".. autoclass:: {kind.__module__}.{kind.__name__}\n{options}"
            page += f"\n## flow.{name}\n\n```{{eval-rst}}\n{directive}```\n"
    return page


def _first_paragraph(text: str) -> str:
    for block in re.split(r"\n\s*\n", text):
        plain = block.strip()
        if plain and not plain.startswith(("#", "|", "```", "- ", ":::", "(", "<", "!")):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(plain.split()))
            return re.split(r"(?<=[.:]) ", plain)[0].rstrip(":")
    return ""


def _write_llms(app: Any, error: Exception | None) -> None:
    """Write what language models read in place of the pages."""
    if error is not None or app.builder.name != "html":
        return
    lines = ["# FlowStone", "", "> Asset-first data orchestration for Python on PostgreSQL, through Oban.", ""]
    texts = []
    for name in sorted(app.env.found_docs, key=lambda one: (one != "index", one.count("/"), one)):
        text = (HERE / f"{name}.md").read_text(encoding="utf-8")
        title = app.env.titles[name].astext()
        about = _first_paragraph(text)
        lines.append(f"- [{title}]({name}.html){f': {about}' if about else ''}")
        texts.append(text)
    out = Path(app.outdir)
    (out / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "llms-full.txt").write_text("\n\n".join(texts), encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Connect what this file adds."""
    app.connect("source-read", _read)
    app.connect("build-finished", _write_llms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
