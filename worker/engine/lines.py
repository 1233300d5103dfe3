"""From boxes of text to a page in reading order.

Detectors give the lines of a page as boxes in no order that a reader would follow. Here they become
regions (a column, or a run of rows across the page), rows in them, and text and markdown of those.
Only geometry decides; sizes are measured in line heights, so that resolution does not matter.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

COLUMN_LINES = 3  # text stands in columns where each has this many lines ...
COLUMN_LINE_WIDTH = 6.0  # ... which are this wide, in line heights, at the median ...
BAND_GAP = 2.0  # line heights of white across the page between columns and something else
COLUMN_FILL = 0.6  # ... and fill this much of their column; cells of a table fill less
TABLE_ROWS = 3
TABLE_FILL = 0.6  # of the cells, at least, have text
CELL_GAP = 1.0  # line heights between two cells; less is a gap between words
PARAGRAPH_GAP = 0.9  # line heights between two paragraphs; less is leading
SAME_ROW = 0.5  # of the lower box's height is shared with its row


@dataclass(frozen=True)
class Line:
    """Text that a detector found in one box; pixels, `x1` and `y1` exclusive."""

    text: str
    confidence: float
    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        """In pixels, and never 0."""
        return max(1, self.x1 - self.x0)

    @property
    def height(self) -> int:
        """In pixels, and never 0."""
        return max(1, self.y1 - self.y0)

    @property
    def middle(self) -> float:
        """The y of its middle."""
        return (self.y0 + self.y1) / 2


Row = list[Line]  # left to right
Region = list[Row]  # top to bottom
Grid = list[list[str]]  # the texts of a table, row by row, all of one length


def arrange(lines: Sequence[Line]) -> list[Region]:
    """The lines as regions in reading order; none is empty.

    Columns of running text are read one after the other. Cells of a table, which are narrow or
    ragged, stay in rows.
    """
    if not lines:
        return []
    gutter = _best_gutter(lines)
    if gutter is None:
        return [rows_of(lines)]
    regions: list[Region] = []
    for band in _bands(lines, gutter):
        columns = _columns(band, gutter)
        for part in columns or (band,):
            regions += arrange(part)
    return regions


def _best_gutter(lines: Sequence[Line]) -> float | None:
    """The x between two columns that brings the most lines into columns; None where none does."""

    def gain(x: float) -> int:
        return sum(len(band) for band in _bands(lines, x) if _columns(band, x))

    best = max(_gutters(lines), key=gain, default=None)
    return best if best is not None and gain(best) else None


def _gutters(lines: Sequence[Line]) -> list[float]:
    """Where a column may begin: a little left of where several lines do."""
    edges = sorted(line.x0 for line in lines)
    height = _line_height(lines)
    found: list[float] = []
    for first, last in zip(edges, edges[COLUMN_LINES - 1 :], strict=False):
        if last - first <= height and (not found or first > found[-1] + height):
            found.append(first - height / 2)
    return found


def _bands(lines: Sequence[Line], x: float) -> list[list[Line]]:
    """The lines from top to bottom, cut where columns on both sides of `x` begin and end."""
    bands: list[list[Line]] = []
    was_in_columns = True  # so that the first group opens a band
    for group in _groups(lines, x):
        in_columns = _columns(group, x) is not None
        if bands and in_columns == was_in_columns:
            bands[-1] += group
        else:
            bands.append(group)
        was_in_columns = in_columns
    return bands


def _groups(lines: Sequence[Line], x: float) -> list[list[Line]]:
    """The lines from top to bottom, cut at wide gaps and where lines across `x` begin and end."""
    wide = BAND_GAP * _line_height(lines)
    groups: list[list[Line]] = []
    bottom, was_across = 0, False
    for line in sorted(lines, key=lambda line: line.middle):
        across = line.x0 < x < line.x1
        if not groups or across != was_across or line.y0 - bottom > wide:
            groups.append([])
        groups[-1].append(line)
        bottom, was_across = max(bottom, line.y1), across
    return groups


def _columns(lines: Sequence[Line], x: float) -> tuple[list[Line], list[Line]] | None:
    """The lines left and right of `x`, where they are columns of running text."""
    left = [line for line in lines if line.x1 <= x]
    right = [line for line in lines if line.x0 >= x]
    if len(left) + len(right) < len(lines) or not (_is_prose(left) and _is_prose(right)):
        return None
    gap = min(line.x0 for line in right) - max(line.x1 for line in left)
    return (left, right) if gap >= CELL_GAP * _line_height(lines) else None


def _is_prose(lines: Sequence[Line]) -> bool:
    """Whether the lines run on: enough of them, wide, and filling their width."""
    if len(lines) < COLUMN_LINES:
        return False
    rows = len(rows_of(lines))
    extent = max(line.x1 for line in lines) - min(line.x0 for line in lines)
    widths = [line.width for line in lines]
    return (
        rows >= COLUMN_LINES
        and statistics.median(widths) >= COLUMN_LINE_WIDTH * _line_height(lines)
        and sum(widths) >= COLUMN_FILL * rows * extent
    )


def _line_height(lines: Sequence[Line]) -> float:
    return statistics.median(line.height for line in lines)


def rows_of(lines: Sequence[Line]) -> list[Row]:
    """The lines as rows, top to bottom; what stands side by side shares a row."""
    rows: list[Row] = []
    for line in sorted(lines, key=lambda line: line.middle):
        # On a slanting page a row may begin before the one above it has ended.
        open_rows = [row for row in rows[-2:] if _belongs(line, row)]
        if open_rows:
            min(open_rows, key=lambda row: _distance(line, _nearest(line, row))).append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.x0) for row in rows]


def _belongs(line: Line, row: Row) -> bool:
    nearest = _nearest(line, row)
    shared = min(line.y1, nearest.y1) - max(line.y0, nearest.y0)
    beside = all(
        min(line.x1, other.x1) - max(line.x0, other.x0) <= min(line.width, other.width) / 2
        for other in row
    )
    return beside and shared >= SAME_ROW * min(line.height, nearest.height)


def _nearest(line: Line, row: Row) -> Line:
    return min(row, key=lambda other: _distance(line, other))


def _distance(line: Line, other: Line) -> int:
    """Pixels between the two, sideways; negative where they overlap."""
    return max(line.x0, other.x0) - min(line.x1, other.x1)


# Text


def text_of(regions: Sequence[Region]) -> str:
    """Plain text: a line for each row, a tab between cells, a blank line between paragraphs."""
    return "\n\n".join(part for region in regions for part in _parts(region, _tabbed))


def markdown_of(regions: Sequence[Region]) -> str:
    """The same, with what is clearly a grid as a pipe table."""
    return "\n\n".join(part for region in regions for part in _parts(region, _piped))


def _parts(rows: Sequence[Row], rendered: Callable[[Grid], str]) -> Iterator[str]:
    """The tables of a region, and the text before, between and after them."""
    text: list[Row] = []
    rest = list(rows)
    while rest:
        table = _table_at(rest)
        if table is None:
            text.append(rest.pop(0))
            continue
        if text:
            yield _paragraphs(text)
            text = []
        yield rendered(table)
        del rest[: len(table)]
    if text:
        yield _paragraphs(text)


def _paragraphs(rows: Sequence[Row]) -> str:
    gaps = [
        min(line.y0 for line in below) - max(line.y1 for line in row)
        for row, below in pairwise(rows)
    ]
    height = _line_height([line for row in rows for line in row])
    limit = max(PARAGRAPH_GAP * height, 1.5 * statistics.median(gaps or [0]))
    breaks = ["\n\n" if gap > limit else "\n" for gap in gaps]
    return "".join(_row_text(row) + end for row, end in zip(rows, [*breaks, ""], strict=True))


def _row_text(row: Row) -> str:
    text = row[0].text
    for line, following in pairwise(row):
        text += ("\t" if _is_cell_gap(line, following) else " ") + following.text
    return text


def _is_cell_gap(line: Line, following: Line) -> bool:
    return following.x0 - line.x1 >= CELL_GAP * min(line.height, following.height)


def _tabbed(table: Grid) -> str:
    return "\n".join("\t".join(texts) for texts in table)


def _piped(table: Grid) -> str:
    rows = [[text.replace("|", "\\|") for text in texts] for texts in table]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("| " + " | ".join(texts) + " |" for texts in rows)


# Tables

Spans = list[tuple[int, int]]  # x0 and x1 of each column, left to right, apart from one another


def _table_at(rows: Sequence[Row]) -> Grid | None:
    """The texts of the table that the first row begins, None where it begins none."""
    spans: Spans = []
    length = 0
    for row in rows:
        wider = _with_row(spans, row)
        if wider is None:
            break
        spans, length = wider, length + 1
    return _grid(spans, rows[:length]) if _is_table(spans, rows[:length]) else None


def _is_table(spans: Spans, rows: Sequence[Row]) -> bool:
    cells = sum(len(row) for row in rows)
    return len(rows) >= TABLE_ROWS and cells >= TABLE_FILL * len(rows) * len(spans)


def _with_row(spans: Spans, row: Row) -> Spans | None:
    """The columns, grown so that each cell of `row` has its own; None where that cannot be."""
    if len(row) < 2 or not all(_is_cell_gap(*pair) for pair in pairwise(row)):  # noqa: PLR2004
        return None
    grown = spans
    for cell in row:
        over = [span for span in grown if span[0] < cell.x1 and cell.x0 < span[1]]
        whole = [*over, (cell.x0, cell.x1)]
        union = min(x0 for x0, _ in whole), max(x1 for _, x1 in whole)
        grown = [*(span for span in grown if span not in over), union]
    homes = {_home(grown, cell) for cell in row}
    return sorted(grown) if len(grown) >= len(spans) and len(homes) == len(row) else None


def _home(spans: Spans, cell: Line) -> int:
    """The number of the column that holds the cell."""
    return next(i for i, (x0, x1) in enumerate(spans) if x0 <= cell.x0 and cell.x1 <= x1)


def _grid(spans: Spans, rows: Sequence[Row]) -> Grid:
    grid = [[""] * len(spans) for _ in rows]
    for texts, row in zip(grid, rows, strict=True):
        for cell in row:
            texts[_home(spans, cell)] = cell.text
    return grid
