"""What is said to a server and whether its replies are right: one file for each protocol.

It decides what differs between protocols, in one table; it must not know when a request is
sent.
"""
