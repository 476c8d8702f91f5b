"""Training: what happens to a model between base and candidate.

`loop` is the whole way, in one file that reads straight down; the other files are what it calls: `setup` (before the
first step), `draws` (what depends on seed, epoch and step alone), `batches`, `step` (a batch's gradients, in parts that
fit), `loss`, `validation`, `reads` (judging by blind reads), `state` (what a killed run goes on from), `memory`,
`workers` (several devices or machines). Around it: `launch` (processes, or Ray Train, that run it together) and `folds`
(an ensemble). Imports no orchestration: it runs alone on a GPU machine.
"""

from radia.fit.draws import balanced
from radia.fit.folds import fit_folds
from radia.fit.launch import train
from radia.fit.loop import FitResult, fit
from radia.fit.validation import Judge

__all__ = ["FitResult", "Judge", "balanced", "fit", "fit_folds", "train"]
