"""One run on an event loop: send what is due, record what comes back.

It decides nothing about figures; it must not know what a good result is.
"""
