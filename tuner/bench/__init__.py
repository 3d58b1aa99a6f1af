"""A step of the plan carried out on real processes, and what spoilt it.

It decides whether a measurement counts; it must not know which one comes next.
"""
