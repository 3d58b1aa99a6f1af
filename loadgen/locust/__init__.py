"""The generator's process as Locust sees it: users, workers, a master, a page, locustfiles.

It decides who runs which share of a load; it must not be imported by any other process, since
Locust patches the one that it is in.
"""
