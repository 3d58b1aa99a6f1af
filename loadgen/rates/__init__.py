"""The rate at a bound, R(B): the highest offered rate with p99 <= B, and how sure that is. Pure.

It decides what windows of load say about R(B) and where the next one tells most; it must not know
how a window is measured, what is served, or which configuration.
"""
