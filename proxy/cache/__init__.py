"""Results kept: in this process, in a server that several proxies share, and under which key.

It decides what is forgotten; it must not know who asks or how results come about.
"""
