"""The tuner: a search over knobs by measuring, and a twin that predicts.

It decides what to measure and what to believe; it must not know a terminal or a file format but
its own study's.
"""
