"""report.html: one page with the figures of report.json and the charts, for any browser, without scripts or network access.

All text of a run is untrusted: records, labels, file names, messages. All of it passes through `escaped`, each piece is isolated for
right-to-left script, and the page's content security policy forbids loading or running anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from minigrad.plots import escaped

MAX_ROWS = 200
"""The maximum number of rows in a table; further rows are only counted."""
MAX_CELL = 2000
"""The maximum number of characters in a cell."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --pale: #5b6770; --line: #d8dee4; --ground: #ffffff; --band: #f3f5f7; --mark: #0068b5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --pale: #a3adb7; --line: #3a444e; --ground: #14181c; --band: #1e242a; --mark: #6db3ec; }
}
body { margin: 2rem auto; max-width: 76rem; padding: 0 1.2rem; font: 15px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--ground); }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; } p { margin: .4rem 0; } .pale, caption { color: var(--pale); } a { color: var(--mark); }
nav a { margin-right: 1rem; white-space: nowrap; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: 1rem; align-items: start; }
.charts svg { width: 100%; height: auto; }
.beside { display: flex; flex-wrap: wrap; gap: 0 2.5rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-size: 13.5px; } caption { text-align: left; padding-bottom: .2rem; }
th, td { padding: .22rem .7rem; text-align: start; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { background: var(--band); } tbody th { font-weight: 500; }
td { white-space: pre-wrap; unicode-bidi: isolate; max-width: 40rem; overflow-wrap: break-word; }
.number { text-align: right; } td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { background: var(--band); padding: .7rem 1rem; overflow-x: auto; border-radius: 6px; }
"""


def page(data: Mapping[str, Any], curves: Mapping[str, str], charts: Sequence[Mapping[str, str]]) -> str:
    """The whole page. data: the content of report.json. curves: SVG by name. charts: for each split in `data["splits"]`, SVG by name."""
    title = f"Training run {data['run']}"
    sections = {
        "Overview": [_facts(data["overview"]), *map(_paragraph, data["absent"])],
        "Curves": [_gallery(curves), _evaluations(data["evaluations"])],
        **{f"Predictions: {split['split']}": list(_split(split, own)) for split, own in zip(data["splits"], charts, strict=True)},
        "Data": [_data(data["data"])],
        "Configuration": [_facts(_flat(data["config"]))],
        "Environment": [_facts(_flat(data["environment"]))],
        "Reproduce": _command(data["command"]),
        "Notices": [_table("", ["step", "notice"], ([notice["step"], notice["message"]] for notice in data["notices"]))],
    }
    kept = {name: "\n".join(parts) for name, parts in sections.items() if any(parts)}
    links = "".join(f'<a href="#part{i}">{escaped(name)}</a>' for i, name in enumerate(kept))
    parts = [f'<section>\n<h2 id="part{i}">{escaped(name)}</h2>\n{part}\n</section>' for i, (name, part) in enumerate(kept.items())]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            f"<h1>{escaped(title)}</h1>\n<nav>{links}</nav>\n<main>",
            *parts,
            "</main>\n</body>\n</html>\n",
        ]
    )


# ---- the parts


def _evaluations(evaluations: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation["metrics"]))
    rows = ([e["step"], e["split"], *map(e["metrics"].get, names), "best so far" if e["best"] else ""] for e in evaluations)
    return _table("Evaluations", ["step", "split", *names, ""], rows)


def _split(split: Mapping[str, Any], charts: Mapping[str, str]) -> Iterator[str]:
    """The section of a file of predictions."""
    yield _paragraph(f"{_count(split['records'], 'record')}, {split['labelled']:,} of them with a label; {split['task']}.")
    if not split["labelled"]:
        yield _paragraph("Without labels nothing can be scored.")
        return
    if split.get("not_finite"):
        yield _paragraph(
            f"{_count(split['not_finite'], 'record')} left out of the scores: a label or prediction is not finite, or beyond 1e100."
        )
    report = split.get("report", {})
    if "entity" in report:
        tables = _scores("Whole entities", report["entity"]) + _scores("Single tags", report["token"])
        yield f'<div class="beside">{tables}</div>'
        yield _paragraph("An entity counts only with its first word, last word and type right; most tags are O and easily right.")
    elif report:
        yield _scores("Scores by class", report)
    if "scores" in split:
        yield _table("Scores", ["metric", "value"], split["scores"].items())
    yield _gallery(charts)
    if "groups" in split:
        yield from _groups(split["group_metric"], split["groups"])
    yield "<h3>Worst mistakes</h3>"
    yield _paragraph(f"{len(split['mistakes'])} of {_count(split['wrong'], 'wrong record')}, by loss.")
    yield _mistakes(split["mistakes"])


def _scores(caption: str, report: Mapping[str, Any]) -> str:
    totals = [(name, report[name]) for name in ("micro", "macro", "weighted") if name in report]
    rows = [*report["classes"].items(), *((f"{name} average", scores) for name, scores in totals)]
    table = [[name, *(scores[key] for key in ("precision", "recall", "f1", "support"))] for name, scores in rows]
    hidden = len(table) - len(totals) - MAX_ROWS
    if hidden > 0:  # classes are left out, averages never
        table[MAX_ROWS - len(totals) : -len(totals)] = []
        caption += f" (without {hidden + len(totals):,} more classes)"
    if "accuracy" in report:
        caption += f"; accuracy {_shown(report['accuracy'])}"
    return _table(caption, ["", "precision", "recall", "F1", "support"], table)


def _groups(metric: str, report: Mapping[str, Any]) -> Iterator[str]:
    rows = ([name, score["value"], score["support"]] for name, score in report["groups"].items())
    yield _table("By group", ["group", metric, "records"], rows)
    if report["gap"] is not None:
        yield _paragraph(f"Best {report['best']}, worst {report['worst']}: a gap of {_shown(report['gap'])}.")
    yield from map(_paragraph, report["notes"][:10])


def _mistakes(mistakes: Sequence[Mapping[str, Any]]) -> str:
    columns = ["row", "text", "text_b", "gold", "prediction", "probability", "loss", "group"]
    used = [name for name in columns if any(mistake[name] is not None for mistake in mistakes)]
    titles = ["second text" if name == "text_b" else name for name in used]
    return _table("", titles, ([mistake[name] for name in used] for mistake in mistakes))


def _data(data: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for facts in data.values() for name in facts))
    return _table("", ["split", *names], ([split, *map(facts.get, names)] for split, facts in data.items()))


def _command(command: str | None) -> list[str]:
    return [] if command is None else [_paragraph("The command that started this run:"), f"<pre>{escaped(command)}</pre>"]


# ---- pieces of a page


def _paragraph(text: str) -> str:
    return f'<p class="pale">{escaped(text)}</p>'


def _gallery(charts: Mapping[str, str]) -> str:
    return f'<div class="charts">\n{"".join(charts.values())}</div>' if charts else ""


def _facts(facts: Mapping[str, Any]) -> str:
    return _table("", [], facts.items())


def _table(caption: str, titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table whose first column names its rows; empty without rows."""
    listed = list(rows)
    if not listed:
        return ""
    parts = ['<div class="wide"><table>', f"<caption>{escaped(caption)}</caption>" if caption else ""]
    if titles:
        kinds = [' class="number"' if i and _is_number(value) else "" for i, value in enumerate(listed[0])]
        heads = "".join(f'<th scope="col"{kind}>{escaped(title)}</th>' for kind, title in zip(kinds, titles, strict=True))
        parts.append(f"<thead><tr>{heads}</tr></thead>")
    parts.append("<tbody>")
    for first, *others in listed[:MAX_ROWS]:
        parts.append(f'<tr><th scope="row" dir="auto">{_text(first)}</th>{"".join(map(_cell, others))}</tr>')
    parts.append("</tbody></table></div>")
    if len(listed) > MAX_ROWS:
        parts.append(_paragraph(f"and {len(listed) - MAX_ROWS:,} more, which report.json holds"))
    return "".join(parts)


def _cell(value: Any) -> str:
    if _is_number(value):
        return f'<td class="number">{_shown(value)}</td>'
    return f'<td dir="auto">{_text(value)}</td>'


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    shown = _shown(value)
    return escaped(shown if len(shown) <= MAX_CELL else shown[:MAX_CELL] + "…")


def _shown(value: Any) -> str:
    """A JSON value as readable text."""
    match value:
        case None:
            return "–"
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            size = abs(value)
            return f"{value:.4g}" if 0 < size < 1e-3 or size >= 1e7 else f"{value:,.{4 if size < 100 else 1}f}"
        case dict():
            return ", ".join(f"{name} {_shown(inner)}" for name, inner in value.items())
        case _:
            return json.dumps(value, ensure_ascii=False)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _flat(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Nested dicts as a flat one, with names such as training.lr."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        where = f"{place}.{name}" if place else name
        flat |= _flat(value, where) if isinstance(value, dict) and value else {where: value}
    return flat
