"""Bytes to a server and back: connections as callbacks, HTTP/1.1 and HTTP/2, TLS.

It decides when a reply is whole; it must not know what is asked or what the reply says.
"""
