"""When requests are due, and which input each carries: pure, seeded, by number.

It decides the load of a run before it begins; it must not know a clock, a connection or a
server.
"""
