"""A measured point on its way into production: one renderer for each target.

It decides how a knob is said in a target's own terms, or that it cannot be; it must not know
how the point was found.
"""
