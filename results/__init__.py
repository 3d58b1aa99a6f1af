"""What leaves a study for people and machines: report, tables, comparison, files to deploy.

It decides how results are said; it must not decide what they are.
"""
