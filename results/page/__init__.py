"""The HTML report of a study: a document of what it shows, and the page that draws it.

It decides what is shown first; it must not measure or judge anything anew.
"""
