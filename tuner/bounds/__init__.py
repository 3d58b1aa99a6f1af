"""What a study's windows say of R(B), the rate that each configuration takes within a bound on p99.

It decides where to measure next, what is compared and which configuration is best at each bound; it
must not know how a window is measured.
"""
