"""RADIA retrains a CheXpert chest X-ray model on a hospital's own data and makes the result trustworthy."""

__version__ = "0.1.0"
