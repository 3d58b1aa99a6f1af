"""What this machine can do, and what will spoil a measurement on it.

It decides what is a problem and says what to do about it; it must not change anything.
"""
