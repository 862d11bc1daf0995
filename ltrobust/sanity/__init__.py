"""Whether a number can be trusted: the panel of checks."""
