"""The evaluation of models: on files (`radia evaluate`), candidate against model in use, figures and the report page.

The metrics themselves are in radia/metrics/, the estimates under label noise in radia/estimate.py.
"""

from radia.evaluate.candidate import comparison_rows, evaluate_candidate, headline, sentence, worst_cells
from radia.evaluate.files import evaluate_files
from radia.evaluate.noisy import under_noise
from radia.evaluate.noisy_page import noisy_section
from radia.evaluate.page import Picture, Section, draw_figures, write_report
from radia.evaluate.sections import further_sections

__all__ = [
    "Picture",
    "Section",
    "comparison_rows",
    "draw_figures",
    "evaluate_candidate",
    "evaluate_files",
    "further_sections",
    "headline",
    "noisy_section",
    "sentence",
    "under_noise",
    "worst_cells",
    "write_report",
]
