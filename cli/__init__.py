"""The commands: the only package that knows about terminals."""
