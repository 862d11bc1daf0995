"""Forms of convolutions that are fast on the CPU; a network that is made for that platform has them."""
