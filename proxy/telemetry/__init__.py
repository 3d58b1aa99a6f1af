"""What is seen of a proxy from outside: counts, metrics, log lines, spans.

It decides what is counted and under which name; it must not change what happens to a request.
"""
