"""What is asked and how it is answered: one file for each protocol, and the table of paths.

It decides what a document means for a model's signature; it must not know how requests are
queued or run.
"""
