"""How results look: pages, charts and tables, from files alone and without JAX."""
