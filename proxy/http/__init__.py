"""HTTP/1.1: bytes to requests, replies to bytes, and the limits on both.

It decides what a well-formed request is, who may send one and how much of it is read; it must
not know a model or a protocol above HTTP.
"""
