"""The heat map of partitions: a calendar, a matrix of two dimensions, or rows of keys.

What lies in which cell is found by `engine/insights/partitions`, which buckets more than 2,000 partitions; here it
is drawn, with one path for each state, so that 2,000 cells are about ten elements. The script `cells.js` lets
pointer and keyboard choose a range, which becomes text in two inputs of a form: `first` and `last`. Without it
there are links, for few cells at each of them, and a table of stretches for many.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import groupby

from flowstone.engine.insights.partitions import MapCell, PartitionMap
from flowstone.web.charts import figure
from flowstone.web.states import cell_path, counted, shape, word
from flowstone.web.svg import Html, element, shortened

LINKED_CELLS = 150
"""With no more cells than this, each is a link of its own."""
_SIZE = 14
_LETTER = 7
_MAX_LABELS = 62

type Address = Callable[..., str]
"""`url` of a template: from the name of a page and its fields to an address."""


def heatmap(
    cells: PartitionMap, *, title: str, asset: str, url: Address | None = None, form: str | None = None
) -> Html:
    """Draw the partitions of an asset as cells.

    Args:
        cells: where each partition lies, and its state.
        title: what the chart shows.
        asset: whose partitions they are.
        url: makes the addresses of the pages of partitions; None for no links.
        form: id of a form with the inputs `first` and `last`, into which a chosen range is written.

    Returns:
        A figure.

    Example:
        >>> cell = MapCell(0, 0, "eu", "eu", 1, "failed", {"failed": 1})
        >>> found = PartitionMap("rows", "", ("eu",), ("0",), (cell,), False)
        >>> "1 failed of 1" in str(heatmap(found, title="Partitions", asset="orders"))
        True
    """
    counts: dict[str, int] = {}
    for cell in cells.cells:
        for state, found in cell.counts.items():
            counts[state] = counts.get(state, 0) + found
    total = sum(counts.values())
    summary = f"{counted(counts)} of {total:,}" if total else "no partitions"
    if cells.is_bucketed:
        what = (
            f"one {cells.unit}" if cells.unit else f"up to {max(cell.size for cell in cells.cells):,} partitions"
        )
        summary += f"; a cell is {what} and shows its worst state"
    linked = url is not None and len(cells.cells) <= LINKED_CELLS
    drawing = _drawing(cells, title, summary, asset, url if linked else None, form)
    legend = [
        element(
            "span",
            element(
                "svg",
                _mark(state, 1, 1),
                viewBox="0 0 14 14",
                width=14,
                height=14,
                class_="swatch",
                aria_hidden="true",
            ),
            word(state),
        )
        for state in sorted(counts, key=lambda one: -shape(one).rank)
        if counts[state]
    ]
    rows = [_stretch(list(part), asset, url) for _, part in groupby(cells.cells, key=lambda cell: cell.worst)]
    header = ("Partitions", "Worst state", "Count")
    return figure(title, summary, drawing, header, rows, kind="cells", legend=legend)


def _drawing(
    cells: PartitionMap, title: str, summary: str, asset: str, url: Address | None, form: str | None
) -> Html:
    names = [shortened(name, 16) for name in cells.rows]
    left = _LETTER * max((len(name) for name in names), default=0) + 6
    top = 0 if cells.kind == "rows" else 16
    width, height = left + len(cells.columns) * _SIZE, top + len(cells.rows) * _SIZE
    paths: dict[str, str] = {}
    links = []
    for cell in cells.cells:
        x, y = left + cell.column * _SIZE + 1, top + cell.row * _SIZE + 1
        if url is None:
            paths[cell.worst] = paths.get(cell.worst, "") + cell_path(cell.worst, x, y)
            continue
        address = url("partition", asset=asset, partition=cell.first)
        links.append(
            element(
                "a", element("title", _says(cell)), _mark(cell.worst, x, y), href=address, aria_label=_says(cell)
            )
        )
    drawing = element(
        "svg",
        element("title", f"{title}: {summary}") if url is None else None,
        _labels(names, left - 4, top, upright=True),
        [] if cells.kind == "rows" else _labels(_column_names(cells), left, top - 5, upright=False),
        [element("path", class_=f"cell {shape(state).css}", d=path) for state, path in paths.items()],
        links,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="group" if links else "img",
        aria_label=f"{title}: {summary}" if links else None,
    )
    box = element(
        "div",
        drawing,
        class_="scroll cells",
        tabindex=0,
        role="group",
        aria_label=f"{title}: arrow keys go from cell to cell, with shift they choose a range",
        data_cells=_as_json(cells),
        data_left=left,
        data_top=top,
        data_size=_SIZE,
        data_kind=cells.kind,
        data_form=form,
    )
    return element("div", box, element("p", "\u00a0", class_="says muted", aria_live="polite"))


def _as_json(cells: PartitionMap) -> str:
    """Return what the script needs: of each cell row, column, first, last (0 for the same), and what it says."""
    return json.dumps(
        [
            [cell.row, cell.column, cell.first, 0 if cell.last == cell.first else cell.last, _state(cell)]
            for cell in cells.cells
        ],
        separators=(",", ":"),
        ensure_ascii=False,
    )


def _mark(state: str, x: float, y: float) -> Html:
    return element("path", class_=f"cell {shape(state).css}", d=cell_path(state, x, y))


def _column_names(cells: PartitionMap) -> Sequence[str]:
    """Return names that fit above a column: two letters, or more above every few."""
    widest = max((len(name) for name in cells.columns), default=1)
    step = max(1, -(-min(widest, 12) * (_LETTER + 1) // _SIZE))
    return [shortened(name, 12) if not at % step else "" for at, name in enumerate(cells.columns)]


def _labels(names: Sequence[str], x: int, y: int, *, upright: bool) -> list[Html]:
    step = max(1, -(-len(names) // _MAX_LABELS))
    found = []
    for at, name in enumerate(names):
        if not name or at % step:
            continue
        place = {"x": x, "y": y + at * _SIZE + 11} if upright else {"x": x + at * _SIZE + 1, "y": y}
        found.append(element("text", name, text_anchor="end" if upright else None, **place))
    return found


def _stretch(part: Sequence[MapCell], asset: str, url: Address | None) -> tuple[Html | str, str, str]:
    first, last = part[0].first, part[-1].last
    name: Html | str = element("bdi", shortened(first))
    if url is not None:
        name = element("a", name, href=url("partition", asset=asset, partition=first))
    counts: dict[str, int] = {}
    for cell in part:
        for state, found in cell.counts.items():
            counts[state] = counts.get(state, 0) + found
    shown = element("span", name, " to ", element("bdi", shortened(last))) if last != first else name
    return shown, word(part[0].worst), counted(counts)


def _state(cell: MapCell) -> str:
    return word(cell.worst) if cell.size == 1 else f"{cell.size:,} partitions, {counted(cell.counts)}"


def _says(cell: MapCell) -> str:
    return f"{cell.first if cell.last == cell.first else f'{cell.first} to {cell.last}'}: {_state(cell)}"
