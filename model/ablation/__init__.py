"""The paper's ablation on data that is at hand: the same small network, steps and videos for every row."""
