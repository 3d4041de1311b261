"""Building blocks of the charts: axes with round ticks, escaped text, and the SVG document."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720.0
INK, PALE, BACKGROUND = "#1f2933", "#5b6770", "#ffffff"
FONTS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
COLOURS = ("#0068b5", "#d1495b", "#00856f", "#8f5bb8", "#b86e00", "#4a5568")
HUGE, TINY = 1e300, 1e-200
"""Larger numbers are clamped to HUGE, ranges below TINY count as empty: no arithmetic here overflows or divides by zero."""
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def escaped(text: str) -> str:
    """`text` escaped for XML and HTML, in an element or a quoted attribute; characters that neither allows become U+FFFD."""
    return escape(UNPRINTABLE.sub("\ufffd", text))


# ---- axes


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values from `low` to `high` to places from `start` to `end` on the page, with `ticks` and their `labels`."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]
    labels: Sequence[str]

    def place(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def axis(values: Sequence[float], start: float, end: float, count: int, *, widen: bool) -> Axis:
    """An axis over `values` with about `count` ticks at multiples of 1, 2, 2.5 or 5 times a power of ten; with `widen` it ends at ticks."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    size = max(abs(low), abs(high))
    if high - low <= max(size * 1e-9, TINY):
        low, high = (low - size / 10, high + size / 10) if size > TINY else (0.0, 1.0)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10, 20) if power * nice >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [place * step for place in range(first, last + 1)]
    if widen:
        low, high = ticks[0], ticks[-1]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return Axis(low, high, start, end, ticks, [_tick_label(tick, step, max(map(abs, ticks), default=1.0)) for tick in ticks])


def _tick_label(value: float, step: float, largest: float) -> str:
    if 1e-3 <= largest < 1e7 and step >= 1e-6:
        decimals = next(d for d in range(12) if math.isclose(round(step, d), step, rel_tol=1e-6))
        return f"{value:,.{decimals}f}"
    if value == 0:
        return "0"
    digits = 1 + max(0, round(math.log10(largest / step)))
    mantissa, power = f"{value:.{digits}e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"


def horizontal_rules(y: Axis, left: float) -> Iterator[str]:
    for tick, label in zip(y.ticks, y.labels, strict=True):
        place = at(y.place(tick))
        yield f'<path d="M{at(left)} {place}H{at(WIDTH - 24)}" stroke="#e4e8ec"/>'
        yield text_mark(left - 8, y.place(tick) + 4, label, "end", PALE)


def vertical_rules(x: Axis, top: float, bottom: float) -> Iterator[str]:
    for tick in x.ticks:
        yield f'<path d="M{at(x.place(tick))} {at(top)}V{at(bottom)}" stroke="{"#9aa5b1" if tick == 0 else "#e4e8ec"}"/>'


def ticks_below(x: Axis, bottom: float) -> Iterator[str]:
    yield f'<path d="M{at(x.start)} {at(bottom)}H{at(x.end)}" stroke="#9aa5b1"/>'
    for tick, label in zip(x.ticks, x.labels, strict=True):
        yield f'<path d="M{at(x.place(tick))} {at(bottom)}v5" stroke="#9aa5b1"/>'
        yield text_mark(x.place(tick), bottom + 20, label, "middle", PALE)


def axis_labels(across: float, bottom: float, up: float, x_label: str, y_label: str) -> Iterator[str]:
    """`x_label` below `bottom`, centred at `across`; `y_label` rotated at the left edge, centred at `up`."""
    yield text_mark(across, bottom + 40, shortened(x_label, 80), "middle", PALE)
    yield text_mark(24, up, shortened(y_label, 40), "middle", PALE, more=f' transform="rotate(-90 24 {at(up)})"')


# ---- marks and text


def shade(share: float) -> str:
    """A colour from white (0) to the first colour of the palette (1)."""
    deepest = (int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (part - 255) * share):02x}" for part in deepest)


def text_mark(x: float, y: float, text: str, anchor: str = "start", colour: str = INK, size: float = 12.0, more: str = "") -> str:
    if not text:
        return ""
    return f'<text x="{at(x)}" y="{at(y)}" text-anchor="{anchor}" font-size="{size:g}" fill="{colour}"{more}>{escaped(text)}</text>'


def text_width(text: str) -> float:
    """The width of `text` in pixels at font size 12, rather overestimated: only the reader's font knows how wide a letter is."""
    return sum(12.5 if unicodedata.east_asian_width(letter) in "WF" else 7.2 for letter in text)


def shortened(text: str, limit: int) -> str:
    line = " ".join(text[: 8 * limit].split())
    return line if len(line) <= limit and len(text) <= 8 * limit else line[: limit - 1] + "…"


def readable(value: float | None) -> str:
    """A number with four significant digits, whole numbers below ten million in full; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e7 else f"{value:.4g}"


def at(place: float) -> str:
    """A coordinate; two decimals are finer than any screen."""
    return f"{place:.2f}".rstrip("0").rstrip(".")


def document(title: str, description: str, height: float, body: Iterable[str]) -> str:
    """The whole SVG: `title` above `body` on a light background, with `description` for screen readers."""
    content = "\n".join(filter(None, body))
    name = hashlib.sha256((escaped(title) + content).encode()).hexdigest()[:12]  # ids must be unique: a page may hold several charts
    size = f'viewBox="0 0 {WIDTH:g} {at(height)}" width="{WIDTH:g}" height="{at(height)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="t{name} d{name}" font-family="{FONTS}">\n'
        f'<title id="t{name}">{escaped(shortened(title, 200))}</title>\n'
        f'<desc id="d{name}">{escaped(" ".join(description.split()))}</desc>\n'
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1:g}" height="{at(height - 1)}" rx="8" fill="{BACKGROUND}" stroke="#d8dee4"/>\n'
        f'<text x="20" y="28" font-size="15" font-weight="600" fill="{INK}">{escaped(shortened(title, 80))}</text>\n{content}\n</svg>\n'
    )
