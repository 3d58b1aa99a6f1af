"""Two results side by side: what changed, and whether that is a regression.

It decides that from intervals alone; it must not know a terminal.
"""
