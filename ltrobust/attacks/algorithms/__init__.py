"""Algorithms of the attacks, one file each: the steps between two evaluations of the network."""
