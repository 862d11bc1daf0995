"""Inputs that break a logits function. Nothing here knows of models or BatchNorm."""

# Of the attacks' arithmetic. Raise it with every change that may change a verdict: verdicts of another version are not
# resumed. `tests/evaluation/test_identity.py` notices such changes.
VERSION = 1
