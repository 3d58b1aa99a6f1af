"""The commands: the only package that knows about terminals.

It decides what is asked of the others; it must not hold a decision of its own about serving or
measuring.
"""
