"""Radiology reports in French and English to the 14 observations, by rules; each label with the place that gave it.

The conventions are in docs/report-labels.md, the words in lexicon/<language>.yaml. Text of reports identifies patients:
it is read here and goes nowhere else. No natural-language package is used, and nothing is learned.
"""

from radia.reports.labeler import Evidence, ReportLabels, label_report
from radia.reports.lexicon import rules_digest
from radia.reports.table import LabelledReports, label_reports, label_with_evidence, read_report_table

__all__ = [
    "Evidence",
    "LabelledReports",
    "ReportLabels",
    "label_report",
    "label_reports",
    "label_with_evidence",
    "read_report_table",
    "rules_digest",
]
