"""The controller's side: the generator driven from outside, rates searched, limits found.

It decides what is measured next within one load test; it must not know a study.
"""
