"""One run on an event loop: what is due is sent, what comes back is written down.

It decides nothing about figures; it must not know what a good result is.
"""
