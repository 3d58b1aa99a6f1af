"""What happens to a request once it was read and until its reply is known.

It decides on hits, admission, queues, batches, expiry and retries, all from the times that it
is given; it must not know a protocol.
"""
