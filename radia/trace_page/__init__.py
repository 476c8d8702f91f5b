"""A trace as one HTML page that needs nothing else: the way of the data as a graph, then every node, folded.

The graph is inline SVG without a script: a band for the data (source file → batch → clean DICOM → image → snapshot) and
one for the models (base → model → evaluation → approval → in use). An arrow carries the action, when, and who.
More than `MANY` of a kind stand in one node; the table of events below the graph has each. Nothing is computed here.
"""

from __future__ import annotations

from radia.trace_page.graph import MANY
from radia.trace_page.links import Links
from radia.trace_page.page import ROWS, to_fragment, to_html

__all__ = ["MANY", "ROWS", "Links", "to_fragment", "to_html"]
