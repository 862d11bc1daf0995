"""Inputs that break a logits function. Nothing here knows of models or BatchNorm."""

from ltrobust.attacks.pgd import pgd

__all__ = ["pgd"]
