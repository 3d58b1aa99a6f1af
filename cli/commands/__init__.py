"""One file for each command, called as the command is.

It decides what a command's options mean; it must not compute figures of its own.
"""
