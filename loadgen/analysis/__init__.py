"""From raw samples to figures with intervals, and to a verdict.

It decides whether a measurement may be believed; it must not know how the samples came about.
"""
