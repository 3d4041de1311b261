"""Charts as SVG text, drawn without any plotting package.

A report must open anywhere and years later, in a browser, a mail or a page of documentation. So a chart here is one string: no script,
no font from elsewhere, a light ground of its own for dark pages, a title and a description for those who hear the page read.
Whatever is drawn, the text is well-formed XML of bounded size: names come from files of strangers, diverged runs have NaN and infinities.
"""

from minigrad.plots.charts import bars, heat_map, lines
from minigrad.plots.page import escaped

__all__ = ["bars", "escaped", "heat_map", "lines"]
