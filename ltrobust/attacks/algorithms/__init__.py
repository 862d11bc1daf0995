"""Attacks, one file each: what one does between two answers of the network."""
