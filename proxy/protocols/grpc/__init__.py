"""V2 over gRPC: the calls, their messages, and the health service that probes ask.

It decides what a message means; it must not know how requests are queued or run, and nothing
outside imports it but `main`.
"""
