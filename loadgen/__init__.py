"""The load generator: schedules, an engine, statistics, verdicts.

It decides what a server can take; it must not know which server that is, and shares no code
with the proxy.
"""
