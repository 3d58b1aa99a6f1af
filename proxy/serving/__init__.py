"""Which models are served, by which workers, and how many of those.

It decides when workers start, stop and are replaced; it must not know a protocol.
"""
