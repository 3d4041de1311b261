"""Charts as SVG text, drawn without any plotting package.

A report must open anywhere and years later: in a browser, an email or a documentation page. So a chart is one string without scripts or
external fonts, with a light background of its own for dark pages, and a title and description for screen readers. Whatever is drawn, the
text is well-formed XML of bounded size: names come from untrusted files, and diverged runs have NaN and infinities.
"""

from minigrad.plots.charts import bars, heat_map, lines
from minigrad.plots.page import escaped

__all__ = ["bars", "escaped", "heat_map", "lines"]
