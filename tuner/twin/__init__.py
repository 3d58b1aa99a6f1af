"""A proxy simulated: what a configuration will do under a load, from calibrated parts.

It decides nothing about what is measured; it must not know a running process.
"""
