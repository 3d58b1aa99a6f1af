"""A model before it is served: file, weights, signature, and whether rows may share a batch.

It decides that by running it on values of its own; it must not know onnxruntime or a worker.
"""
