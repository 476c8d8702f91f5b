"""Radiology reports in French and English to the 14 observations, by rules; each label with the place that gave it.

The conventions are in docs/report-labels.md, the words in lexicon/<language>.yaml. Text of reports identifies patients:
it is read here and goes nowhere else. No natural-language package is used, and nothing is learned.
"""

from radia.reports.labeler import Evidence, ReportLabels, label_report
from radia.reports.table import label_reports, read_report_table

__all__ = ["Evidence", "ReportLabels", "label_report", "label_reports", "read_report_table"]
