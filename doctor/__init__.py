"""What this machine can do, and what will spoil a measurement on it."""
