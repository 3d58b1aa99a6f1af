"""The inference proxy: requests in, batches out to model workers.

It decides how a model is served; it must not know who measures it.
"""
