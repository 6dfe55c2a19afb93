"""Training and evaluation data: video datasets, synthetic clips made from photos, and the batch stream."""
