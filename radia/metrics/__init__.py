"""Metrics of a classifier with two answers, their 95% intervals, and differences between two models on the same images.

Numpy only; knows no files, models or findings' meaning. Everything is vectorised over rows and bootstrap replicates.

How the intervals are made (patients are the unit, whatever the number of images of each):

==============================  =====================================================================================
sensitivity ... npv             Wilson's score interval with the effective sample size of the clustered proportion
f1                              the same for TP / (TP + FP + FN), of which F1 is a monotone function
auroc, auprc, mcc               bootstrap standard error on the logit (mcc: Fisher's z) scale, Student's t
brier                           bootstrap standard error on the log scale, Student's t
ece                             inverted test: noise makes the plug-in ECE too large even of a perfect model
means over findings             as auroc, less the bootstrap's bias, freedom by Welch and Satterthwaite; ece as ece;
                                ppv, npv: from each finding's limits (Zou and Donner 2008)
differences                     bootstrap standard error of the paired difference, Student's t; ece: from both limits;
                                ppv, npv: from each model's limits and the correlation of the replicates (the same)
==============================  =====================================================================================

benchmarks/metrics.py measures their coverage by simulation. Where a finding has so few positives, or is called so
seldom, that a count can take a few values only, no interval covers exactly 95%: these then cover more.
"""

from radia.metrics.assess import NAMED_SETS, Assessment, assess, decisions_of, row_means, table_of
from radia.metrics.delong import DeLong, auroc_influence, clustered_covariance, delong, midranks
from radia.metrics.differences import Comparison, differences, holm, mean_comparison
from radia.metrics.intervals import (
    PROPORTIONS,
    Interval,
    combined_limits,
    correlations,
    deviation,
    effective_size,
    recalibration,
    shown,
    t_quantile,
    wilson,
)
from radia.metrics.points import (
    ECE_BINS,
    METRICS,
    Bools,
    Floats,
    Ints,
    auprc,
    auroc,
    brier,
    calibration_bin,
    choose_thresholds,
    confusion,
    counted_metrics,
    ece,
    f1,
    group_codes,
    mcc,
)
from radia.metrics.replicates import Column, Draws, bootstrap, pool_columns, resample

__all__ = [
    "ECE_BINS",
    "METRICS",
    "NAMED_SETS",
    "PROPORTIONS",
    "Assessment",
    "Bools",
    "Column",
    "Comparison",
    "DeLong",
    "Draws",
    "Floats",
    "Interval",
    "Ints",
    "assess",
    "auprc",
    "auroc",
    "auroc_influence",
    "bootstrap",
    "brier",
    "calibration_bin",
    "choose_thresholds",
    "clustered_covariance",
    "combined_limits",
    "confusion",
    "correlations",
    "counted_metrics",
    "decisions_of",
    "delong",
    "deviation",
    "differences",
    "ece",
    "effective_size",
    "f1",
    "group_codes",
    "holm",
    "mcc",
    "mean_comparison",
    "midranks",
    "pool_columns",
    "recalibration",
    "resample",
    "row_means",
    "shown",
    "t_quantile",
    "table_of",
    "wilson",
]
