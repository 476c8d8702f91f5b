"""Training: what happens to a model between base and candidate.

`loop` is the whole way, in one file that reads straight down; the other files are what it calls: `setup` (before the
first step), `draws` (what depends on seed, epoch and step alone), `batches`, `loss`, `validation`, `state` (what a
killed run goes on from), `memory`, `workers` (several devices or machines), `folds` (an ensemble), `job` (a training
as a folder of files, for another machine or for Ray). Imports no orchestration: it runs alone on a GPU machine.
"""

from radia.fit.draws import balanced
from radia.fit.folds import fit_folds
from radia.fit.loop import FitResult, fit
from radia.fit.validation import Judge

__all__ = ["FitResult", "Judge", "balanced", "fit", "fit_folds"]
