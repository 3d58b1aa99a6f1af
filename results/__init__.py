"""What leaves a study for people and machines: page, tables, comparison, deployment files."""
