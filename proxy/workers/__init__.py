"""Both ends of a worker: the front's link, and the process with the model, here or elsewhere.

It decides how a batch is framed and run; it must not know what waits in the front.
"""
