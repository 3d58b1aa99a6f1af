"""What a study keeps on disk: its points, its wall time, and who works on it.

It decides the format; it must not know what the points mean.
"""
