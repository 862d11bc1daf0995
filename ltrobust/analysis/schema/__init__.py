"""The fields of every record that results are written in: cards, comparisons, diagnoses. No JAX."""
