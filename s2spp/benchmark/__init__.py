"""`s2spp bench`: every way to the model, measured beside the bare model in the same run."""
