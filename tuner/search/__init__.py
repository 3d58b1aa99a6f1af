"""Which configuration to measure next, from the points recorded so far.

It decides that alone and without I/O; it must not know how anything is measured.
"""
