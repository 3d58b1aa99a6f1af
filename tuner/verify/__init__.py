"""From the repeats of candidates to what is reported and recommended.

It decides what holds; it must not know how anything is measured.
"""
