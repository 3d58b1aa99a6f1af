"""Servers under test: started, set, watched and stopped.

It decides how a configuration gets into a server; it must not know why it is measured.
"""
