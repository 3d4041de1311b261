"""The three charts: line charts, bar charts and heat maps. Each draws a bounded number of elements, whatever its input."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from minigrad.errors import ArgumentError
from minigrad.plots import page
from minigrad.plots.page import Axis, at, escaped, readable, shortened, text_mark, text_width

MAX_SERIES = 12
"""Series that `lines` draws at most; the legend says how many it left out."""
MAX_BUCKETS = 400
"""Buckets that a longer series is divided into. Of each, only the lowest and the highest point are drawn, and one gap if it has any."""
MAX_BARS = 40
"""Bars that `bars` draws at most: the largest."""
MAX_CLASSES = 20
"""Rows, and columns, that `heat_map` draws at most: the largest."""
DASHES = ("", "7 3", "2 3")
"""Dash patterns. Series go through all colours with the first, then through all colours with the next."""

Point = tuple[float, float]


def lines(title: str, series: Mapping[str, Sequence[Point]], x_label: str = "", y_label: str = "") -> str:
    """A line chart through the (x, y) points of each named series, in the order given; a point that is not finite leaves a gap.

    A series of many points is thinned, keeping the extremes of every stretch. At most `MAX_SERIES` are drawn.
    """
    drawn = {name: _thinned(points) for name, points in islice(series.items(), MAX_SERIES)}
    names = [shortened(name, 40) for name in drawn]
    if len(series) > MAX_SERIES:
        names.append(f"and {len(series) - MAX_SERIES} more, not drawn")
    finite = [point for points in drawn.values() for point in points if point is not None]
    top, legend = _legend(names, 52)
    bottom = top + 250
    y = page.axis([y for _, y in finite], bottom, top + 8, 5, widen=True)
    left = 30 + max(text_width(label) for label in y.labels) + (18 if y_label else 0)
    x = page.axis([x for x, _ in finite], left, page.WIDTH - 24, 7, widen=False)
    axis_names = page.axis_labels((left + x.end) / 2, bottom, (top + bottom) / 2, x_label, y_label)
    body = [*legend, *page.horizontal_rules(y, left), *page.ticks_below(x, bottom), *axis_names]
    for place, points in enumerate(drawn.values()):
        body += _curve(points, x, y, _stroke(place))
    if not finite:
        body.append(text_mark((left + page.WIDTH) / 2, (top + bottom) / 2, "nothing finite to draw", "middle", page.PALE))
    description = "; ".join(_described(name, points) for name, points in zip(names, drawn.values(), strict=False)) or "no series"
    return page.document(title, f"Line chart. {description}.", bottom + (54 if x_label else 36), body)


def bars(title: str, labels: Sequence[str], values: Sequence[float], x_label: str = "", y_label: str = "") -> str:
    """A horizontal bar for each label, with its value: `x_label` names the values, `y_label` the labels.

    Of more than `MAX_BARS` the largest are drawn, in the order given.
    Raises: ArgumentError: the numbers of labels and values differ.
    """
    if len(labels) != len(values):
        raise ArgumentError(f"bars need one value for each label, got {len(labels)} labels and {len(values)} values")
    chosen = _largest([_clamped(value) or 0.0 for value in values], MAX_BARS)
    names = [shortened(labels[i], 32) for i in chosen]
    numbers = [_clamped(values[i]) for i in chosen]
    top, pitch = 56, 24
    bottom = top + pitch * max(len(chosen), 1) + 6
    left = 30 + max((text_width(name) for name in names), default=0) + (18 if y_label else 0)
    x = page.axis([0.0, *(number for number in numbers if number is not None)], left, page.WIDTH - 84, 6, widen=True)
    axis_names = page.axis_labels((left + x.end) / 2, bottom, (top + bottom) / 2, x_label, y_label)
    body = [*page.vertical_rules(x, top, bottom), *page.ticks_below(x, bottom), *axis_names]
    for place, (i, name, number) in enumerate(zip(chosen, names, numbers, strict=True)):
        middle = top + pitch * (place + 0.5) + 3
        body.append(text_mark(left - 8, middle + 4, name, "end"))
        start, end = sorted((x.place(0.0), x.place(number or 0.0)))
        tooltip = escaped(f"{shortened(labels[i], 200)}: {readable(number)}")
        body.append(f'<rect x="{at(start)}" y="{at(middle - 8)}" width="{at(end - start)}" height="16" rx="2" fill="{page.COLOURS[0]}">')
        body.append(f"<title>{tooltip}</title></rect>")
        body.append(text_mark(end + 6, middle + 4, readable(number), colour=page.PALE))
    left_out = _left_out(len(labels), len(chosen), "bars")
    description = "; ".join(f"{name}: {readable(number)}" for name, number in zip(names, numbers, strict=True)) or "no bars"
    body.append(text_mark(left, 46, left_out, colour=page.PALE))
    return page.document(title, f"Bar chart. {left_out} {description}.", bottom + (54 if x_label else 36), body)


def heat_map(
    title: str,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    values: Sequence[Sequence[float]],
    x_label: str = "",
    y_label: str = "",
) -> str:
    """A table of numbers; the larger a number, the darker its cell. In a confusion matrix, rows are gold labels and columns predictions.

    The colour follows the square root, so that rare confusions are visible beside a full diagonal. Of more than `MAX_CLASSES` rows or
    columns, those with the largest sums are shown; if both have the same labels, the same ones in both.

    Shapes: values (rows, columns)
    Raises: ArgumentError: the table does not have a row for each row label with a value for each column label.
    """
    if len(values) != len(row_labels) or any(len(row) != len(column_labels) for row in values):
        raise ArgumentError(f"a heat map needs {len(row_labels)} rows of {len(column_labels)} values, as many as it has labels")
    rows, columns = _largest_classes(row_labels, column_labels, values)
    row_names, column_names = [shortened(row_labels[i], 22) for i in rows], [shortened(column_labels[j], 22) for j in columns]
    table = [[_clamped(values[i][j]) for j in columns] for i in rows]
    left_out = f"{_left_out(len(row_labels), len(rows), 'rows')} {_left_out(len(column_labels), len(columns), 'columns')}".strip()

    left = 30 + max(map(text_width, row_names), default=0) + (18 if y_label else 0)
    longest = max(map(text_width, column_names), default=0)
    cell = min(84.0, (page.WIDTH - 24 - left) / max(len(columns), 1))
    rotated = longest > cell - 6
    if rotated:  # the last name sticks out to the right of its column
        cell = min(84.0, (page.WIDTH - 0.7 * longest - left) / len(columns))
    top = 72 + (18 if x_label else 0) + (0.75 * longest - 8 if rotated else 0)
    right, bottom = left + cell * len(columns), top + min(cell, 34.0) * len(rows)

    body = [text_mark(20, 46, left_out, colour=page.PALE), *_column_names(column_names, left, top - 8, cell, rotated)]
    body.append(text_mark((left + right) / 2, 66, shortened(x_label, 80), "middle", page.PALE))
    body += [*page.axis_labels(0, 0, (top + bottom) / 2, "", y_label), *_cells(row_names, column_names, table, left, top, cell)]
    described = [f"{name}: {', '.join(map(readable, row))}" for name, row in zip(row_names, table, strict=True)]
    description = f"columns {', '.join(column_names)}; {'; '.join(described)}" if described else "no rows"
    return page.document(title, f"Table. {left_out} {description}.", bottom + 20, body)


# ---- which numbers are drawn


def _clamped(value: float) -> float | None:
    return min(max(float(value), -page.HUGE), page.HUGE) if math.isfinite(value) else None


def _thinned(points: Sequence[Point]) -> list[Point | None]:
    """The points to draw; None is a gap."""
    clean: list[Point | None] = []
    for x, y in points:
        place, height = _clamped(x), _clamped(y)
        clean.append(None if place is None or height is None else (place, height))
    size = math.ceil(len(clean) / MAX_BUCKETS)
    if size <= 3:  # a bucket keeps up to three
        return clean
    between = [point for start in range(1, len(clean) - 1, size) for point in _extremes(clean[start : min(start + size, len(clean) - 1)])]
    return [clean[0], *between, clean[-1]]


def _extremes(bucket: Sequence[Point | None]) -> Iterator[Point | None]:
    heights = {i: point[1] for i, point in enumerate(bucket) if point is not None}
    kept = {min(heights, key=heights.__getitem__), max(heights, key=heights.__getitem__)} if heights else set()
    if None in bucket:
        kept.add(bucket.index(None))
    return (bucket[i] for i in sorted(kept))


def _largest(weights: Sequence[float], count: int) -> list[int]:
    """The indices of the `count` largest magnitudes, in ascending order."""
    return sorted(sorted(range(len(weights)), key=lambda i: -abs(weights[i]))[:count])


def _largest_classes(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float]]) -> tuple[list[int], list[int]]:
    table = [[abs(_clamped(value) or 0.0) / page.HUGE for value in row] for row in values]  # divided: sums must not overflow
    across, down = [sum(row) for row in table], [sum(column) for column in zip(*table, strict=True)] or [0.0] * len(columns)
    if list(rows) == list(columns):
        kept = _largest([one + other for one, other in zip(across, down, strict=True)], MAX_CLASSES)
        return kept, kept
    return _largest(across, MAX_CLASSES), _largest(down, MAX_CLASSES)


def _left_out(total: int, shown: int, what: str) -> str:
    return "" if shown == total else f"The {shown} largest of {total} {what}."


def _stroke(place: int) -> str:
    dash = DASHES[place // len(page.COLOURS) % len(DASHES)]
    return f'stroke="{page.COLOURS[place % len(page.COLOURS)]}" stroke-width="1.6"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _column_names(names: Sequence[str], left: float, bottom: float, cell: float, rotated: bool) -> Iterator[str]:
    for j, name in enumerate(names):
        place = left + (j + 0.5) * cell
        more = f' transform="rotate(-45 {at(place)} {at(bottom)})"' if rotated else ""
        yield text_mark(place, bottom, name, "start" if rotated else "middle", more=more)


def _cells(
    row_names: Sequence[str], column_names: Sequence[str], table: Sequence[Sequence[float | None]], left: float, top: float, width: float
) -> Iterator[str]:
    """The rows with their names; cells are squares up to 34 pixels, and flatter beyond that."""
    finite = [value for row in table for value in row if value is not None]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    height, size = min(width, 34.0), 12.0 if width >= 44 else 9.0
    for i, row in enumerate(table):
        y = top + i * height
        yield text_mark(left - 8, y + height / 2 + 4, row_names[i], "end")
        for j, value in enumerate(row):
            x = left + j * width
            share = 0.0 if value is None or high <= low else math.sqrt((value - low) / (high - low))
            tooltip = escaped(f"{row_names[i]} / {column_names[j]}: {readable(value)}")
            yield f'<rect x="{at(x)}" y="{at(y)}" width="{at(width)}" height="{at(height)}" fill="{page.shade(share)}" stroke="#d8dee4">'
            yield f"<title>{tooltip}</title></rect>"
            colour = page.BACKGROUND if share > 0.6 else page.INK
            yield text_mark(x + width / 2, y + height / 2 + size / 3, readable(value), "middle", colour, size, ' pointer-events="none"')


def _curve(points: Sequence[Point | None], x: Axis, y: Axis, stroke: str) -> Iterator[str]:
    """One path, restarted after each gap; dots with their values if there are few points."""
    steps, pen = [], "M"
    for point, following in zip(points, [*points, None][1:], strict=True):
        if point is None:
            pen = "M"
            continue
        steps.append(f"{pen}{at(x.place(point[0]))} {at(y.place(point[1]))}")
        if pen == "M" and following is None:
            steps.append("h0")  # an isolated point: round line caps make it a dot
        pen = "L"
    yield f'<path d="{"".join(steps)}" fill="none" {stroke} stroke-linecap="round" stroke-linejoin="round"/>' if steps else ""
    if len(points) <= 50:
        colour = stroke.split('"')[1]
        for point in filter(None, points):
            place = f'cx="{at(x.place(point[0]))}" cy="{at(y.place(point[1]))}"'
            yield f'<circle {place} r="3" fill="{colour}"><title>{readable(point[0])}: {readable(point[1])}</title></circle>'


def _described(name: str, points: Sequence[Point | None]) -> str:
    finite = [point for point in points if point is not None]
    if not finite:
        return f"{name}: nothing finite"
    (first, begun), (last, ended) = finite[0], finite[-1]
    heights = [y for _, y in finite]
    extremes = f"lowest {readable(min(heights))}, highest {readable(max(heights))}"
    return f"{name}: from {readable(begun)} at {readable(first)} to {readable(ended)} at {readable(last)}, {extremes}"


def _legend(names: Sequence[str], top: float) -> tuple[float, list[str]]:
    """Rows of series names with samples of their strokes, and the y coordinate where they end."""
    left, marks = 24.0, []
    for place, name in enumerate(names):
        width = 34 + text_width(name) + 18
        if left + width > page.WIDTH - 10 and left > 24:
            left, top = 24.0, top + 20
        if place < MAX_SERIES:
            marks.append(f'<path d="M{at(left)} {at(top - 4)}h24" {_stroke(place)}/>')
        marks.append(text_mark(left + 31, top, name))
        left += width
    return top + 14, marks
