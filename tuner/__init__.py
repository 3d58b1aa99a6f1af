"""The tuner: knobs as a search space, trials, front, verification, export."""
