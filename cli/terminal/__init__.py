"""What people see: tables, live panels, and which stream a line goes to.

It decides widths and colours; it must not know how a figure came about.
"""
