"""The values that requests carry: made from a model's metadata, or read from files.

It decides shapes and values; it must not know how they are written on a wire.
"""
