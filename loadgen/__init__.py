"""The load generator: schedules, engine, histograms, validity."""
