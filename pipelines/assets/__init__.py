"""One file per stage of the way of the data, each asset as thin as it can be."""
