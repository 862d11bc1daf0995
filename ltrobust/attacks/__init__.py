"""Inputs that break a logits function. Nothing here knows of models or BatchNorm."""
