"""The evaluation of models: on files (`radia evaluate`), candidate against model in use, figures and the report page.

The metrics themselves are in radia/metrics.py, the estimates under label noise in radia/estimate.py.
"""

from radia.evaluate.candidate import evaluate_candidate
from radia.evaluate.files import evaluate_files
from radia.evaluate.page import Picture, Section, write_report

__all__ = ["Picture", "Section", "evaluate_candidate", "evaluate_files", "write_report"]
