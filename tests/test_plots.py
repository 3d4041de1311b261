"""Charts: well-formed and bounded whatever they are given, and true to the numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.errors import ArgumentError
from minigrad.plots import bars, escaped, heat_map, lines
from minigrad.plots.charts import MAX_BARS, MAX_BUCKETS, MAX_CLASSES, MAX_SERIES

SVG = "{http://www.w3.org/2000/svg}"

any_text = st.text(st.characters(codec=None, categories=None), max_size=60)
any_number = st.floats() | st.sampled_from([0.0, -0.0, 5e-324, 1.7e308, -1.7e308, math.nan, math.inf, -math.inf])
any_series = st.dictionaries(any_text, st.lists(st.tuples(any_number, any_number), max_size=20), max_size=4)


def parsed(svg: str) -> ElementTree.Element:
    """The chart as a tree, once everything has been checked that holds for every chart."""
    root = ElementTree.fromstring(svg.encode("utf-8"))
    assert root.tag == f"{SVG}svg"
    assert root[0].tag == f"{SVG}title" and root[1].tag == f"{SVG}desc" and root[1].text
    assert root.attrib["aria-labelledby"].split() == [root[0].attrib["id"], root[1].attrib["id"]]
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {"svg", "title", "desc", "rect", "path", "circle", "text"}
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for element in root.iter():
        for name in ("x", "y", "cx", "cy", "width", "height"):
            if name in element.attrib:
                assert -1 <= float(element.attrib[name]) <= max(width, height)
        for number in re.findall(r"[^\sMLHVhv]+", element.attrib.get("d", "")):
            assert -1 <= float(number) <= max(width, height)
    assert not any(word in " ".join(element.attrib.values()).lower() for element in root.iter() for word in ("nan", "inf", "http"))
    return root


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}text")]


def curve(svg: str) -> list[str]:
    """The paths of the series; rules and ticks carry no join."""
    return [path.attrib["d"] for path in parsed(svg).iter(f"{SVG}path") if "stroke-linejoin" in path.attrib]


# ---- whatever they are given


@given(any_text, any_series, any_text, any_text)
def test_lines_of_anything(title: str, series: dict[str, list[tuple[float, float]]], x_label: str, y_label: str) -> None:
    svg = lines(title, series, x_label, y_label)
    parsed(svg)
    assert len(svg) < 40_000


@given(any_text, st.lists(st.tuples(any_text, any_number), max_size=60), any_text)
def test_bars_of_anything(title: str, rows: list[tuple[str, float]], label: str) -> None:
    svg = bars(title, [name for name, _ in rows], [value for _, value in rows], label, label)
    parsed(svg)
    assert len(svg) < 60_000


@given(st.data(), st.lists(any_text, max_size=25), st.lists(any_text, max_size=25), any_text)
def test_heat_maps_of_anything(data: st.DataObject, rows: list[str], columns: list[str], label: str) -> None:
    values = data.draw(st.lists(any_number, min_size=1, max_size=9))
    table = [[values[(i * len(columns) + j) % len(values)] for j in range(len(columns))] for i in range(len(rows))]
    svg = heat_map(label, rows, columns, table, label, label)
    parsed(svg)
    assert len(svg) < 300_000


@given(any_text)
def test_escaped_text_is_read_back_as_it_was_or_marked(text: str) -> None:
    read = ElementTree.fromstring(f'<a b="{escaped(text)}">{escaped(text)}</a>'.encode())
    assert (read.text or "") == re.sub("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text).replace(
        "\r\n", "\n"
    ).replace("\r", "\n")
    assert "<" not in read.attrib["b"] or "<" in text


def test_size_is_bounded_for_long_input() -> None:
    long = "x" * 10**6
    noise = [(float(i), math.sin(i * i)) for i in range(200_000)]
    assert len(lines(long, {f"{i}{long}": noise if i < 2 else [] for i in range(100)}, long, long)) < 80_000
    assert len(bars(long, [long] * 1000, [1.0] * 1000, long, long)) < 60_000
    assert len(heat_map(long, [long] * 200, [long] * 200, [[1.0] * 200] * 200, long, long)) < 300_000


# ---- true to the numbers


def test_lines_put_points_where_their_numbers_say() -> None:
    svg = lines("Loss", {"a": [(0, 0), (10, 1), (20, 0.5)]}, "step", "loss")
    (path,) = curve(svg)
    (x0, y0), (x1, y1), (x2, y2) = ([float(number) for number in part.split()] for part in re.findall(r"[\d.]+ [\d.]+", path))
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.02)  # two decimals are written
    assert y0 - y1 == pytest.approx(2 * (y0 - y2), abs=0.02) and y0 > y2 > y1
    assert {"Loss", "a", "step", "loss", "0", "10", "0.0", "1.0"} <= set(texts(svg))
    assert [circle[0].text for circle in parsed(svg).iter(f"{SVG}circle")] == ["0: 0", "10: 1", "20: 0.5"]
    assert "a: from 0 at 0 to 0.5 at 20, lowest 0, highest 1" in str(parsed(svg)[1].text)


@pytest.mark.parametrize("hole", [math.nan, math.inf, -math.inf])
def test_a_point_that_is_not_finite_leaves_a_gap(hole: float) -> None:
    (path,) = curve(lines("", {"a": [(0, 1), (1, 2), (2, hole), (3, 1), (4, 2)]}))
    assert [letter for letter in path if letter.isalpha()] == ["M", "L", "M", "L"]
    (path,) = curve(lines("", {"a": [(0, hole), (1, 2), (2, hole)]}))
    assert path.endswith("h0")  # a point alone still shows
    assert "nothing finite to draw" in texts(lines("", {"a": [(0, hole)]}))


def test_thinning_keeps_ends_extremes_and_gaps() -> None:
    points = [(float(i), 1.0 + i % 2) for i in range(50_000)]
    points[17_001], points[31_003], points[40_000] = (17_001.0, 9.0), (31_003.0, -7.0), (40_000.0, math.nan)
    svg = lines("", {"a": points})
    (path,) = curve(svg)
    assert path.count("M") == 2 and path.count("L") <= 3 * MAX_BUCKETS + 2
    assert "from 1 at 0 to 2 at 49,999, lowest -7, highest 9" in str(parsed(svg)[1].text)


def test_series_have_strokes_of_their_own_and_those_left_out_are_counted() -> None:
    svg = lines("", {f"series {i}": [(0, i), (1, i)] for i in range(MAX_SERIES + 3)})
    strokes = {
        (path.attrib["stroke"], path.attrib.get("stroke-dasharray")) for path in parsed(svg).iter(f"{SVG}path") if "fill" in path.attrib
    }
    assert len(strokes) == MAX_SERIES
    assert "and 3 more, not drawn" in texts(svg)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 1], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0, 4e-5], ["0", "1e-5", "2e-5", "3e-5", "4e-5"]),
        ([0, 2e-4], ["0", "5e-5", "1e-4", "1.5e-4", "2e-4"]),
        ([0, 40_000], ["0", "10,000", "20,000", "30,000", "40,000"]),
        ([0, 3e8], ["0", "1e8", "2e8", "3e8"]),
        ([0, 1.2], ["0.00", "0.25", "0.50", "0.75", "1.00", "1.25"]),
        ([2, 2], ["1.8", "1.9", "2.0", "2.1", "2.2"]),
    ],
)
def test_ticks_are_round(values: Sequence[float], ticks: list[str]) -> None:
    shown = texts(lines("", {"": [(float(i), value) for i, value in enumerate(values)]}))
    assert [text for text in shown if text in ticks][: len(ticks)] == ticks


def test_bars_are_as_long_as_their_numbers() -> None:
    svg = bars("F1", ["a", "b", "c"], [0.5, 1.0, -0.25], "F1", "class")
    bar = {rect[0].text: rect for rect in parsed(svg).iter(f"{SVG}rect") if len(rect)}
    widths = {name: float(rect.attrib["width"]) for name, rect in bar.items()}
    assert widths["b: 1"] == pytest.approx(2 * widths["a: 0.5"], abs=0.02) == pytest.approx(4 * widths["c: -0.25"], abs=0.04)
    assert float(bar["c: -0.25"].attrib["x"]) < float(bar["a: 0.5"].attrib["x"])
    assert {"0.5", "1", "-0.25", "F1", "class"} <= set(texts(svg))


def test_the_largest_bars_are_kept_in_their_order() -> None:
    shown = texts(bars("", [f"bar {i}" for i in range(100)], list(range(100))))
    assert [text for text in shown if text.startswith("bar")] == [f"bar {i}" for i in range(100 - MAX_BARS, 100)]
    assert f"The {MAX_BARS} largest of 100 bars." in shown


def test_a_confusion_matrix_keeps_the_same_classes_in_both_directions() -> None:
    names = [f"class {i}" for i in range(50)]
    table = [[float(100 + i if i == j else 9 * (j == 3)) for j in range(50)] for i in range(50)]
    shown = texts(heat_map("", names, names, table))
    rows_and_columns = [text for text in shown if text.startswith("class")]
    kept = [f"class {i}" for i in [3, *range(50 - MAX_CLASSES + 1, 50)]]  # class 3 is what the others are taken for
    assert rows_and_columns == kept * 2
    assert f"The {MAX_CLASSES} largest of 50 rows. The {MAX_CLASSES} largest of 50 columns." in shown


def test_cells_are_darker_the_larger_they_are() -> None:
    svg = heat_map("", ["neg", "pos"], ["neg", "pos"], [[0, 9], [1, 100]], "predicted", "gold")
    shades = {rect[0].text: int(rect.attrib["fill"][1:3], 16) for rect in parsed(svg).iter(f"{SVG}rect") if len(rect)}
    assert shades["neg / neg: 0"] == 255 > shades["pos / neg: 1"] > shades["neg / pos: 9"] > shades["pos / pos: 100"] == 0
    assert {"100", "predicted", "gold"} <= set(texts(svg))


def test_charts_of_one_page_have_names_of_their_own() -> None:
    charts = [parsed(lines("a", {"a": [(0, height), (1, 2)]})) for height in (0, 1)]
    assert len({chart[0].attrib["id"] for chart in charts}) == 2


def test_labels_and_values_must_fit() -> None:
    with pytest.raises(ArgumentError, match="2 labels and 1 values"):
        bars("", ["a", "b"], [1.0])
    for values in ([[1.0]], [[1.0, 2.0], [1.0]], []):
        with pytest.raises(ArgumentError, match="2 rows of 2 values"):
            heat_map("", ["a", "b"], ["a", "b"], values)
