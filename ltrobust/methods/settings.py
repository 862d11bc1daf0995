"""Checks of methods' settings, before compilation."""

from ltrobust.runtime.names import nearest

# Where a paper and its released code differ: `as_described` follows the paper, `as_released` the code.
VARIANTS = ("as_described", "as_released")


def check_weights(method: str, **weights: float) -> None:
    """Refuses settings that are negative or not a number.

    Raises:
      ValueError: names method, setting and value.
    """
    for name, value in weights.items():
        if not value >= 0:
            raise ValueError(f"{method}.{name} is {value}; it must be at least 0.")


def check_positive(method: str, **values: float) -> None:
    """Refuses settings that are not above 0.

    Raises:
      ValueError: names method, setting and value.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{method}.{name} is {value}; it must be above 0.")


def check_fractions(method: str, **values: float) -> None:
    """Refuses settings outside of [0, 1].

    Raises:
      ValueError: names method, setting and value.
    """
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{method}.{name} is {value}; it must lie in [0, 1].")


def check_choices(method: str, **choices: tuple[str, tuple[str, ...]]) -> None:
    """Refuses unknown names; each setting comes with the known ones.

    Raises:
      ValueError: names method, setting and value, and lists the known ones.
    """
    for name, (value, known) in choices.items():
        if value not in known:
            raise ValueError(f"{method}.{name} is {value!r}; {nearest(value, known)}known: {', '.join(known)}.")


def check_variant(method: str, variant: str) -> None:
    """Refuses what is not in `VARIANTS`.

    Raises:
      ValueError: names the method and the value.
    """
    check_choices(method, variant=(variant, VARIANTS))


def check_parts(key: str, parts: int, method: str, separable: bool) -> None:
    """Refuses a number of parts into which a batch of the method cannot be divided, whatever its size.

    Raises:
      ValueError: names key, value and method.
    """
    if parts < 1 or isinstance(parts, bool):
        raise ValueError(f"{key} is {parts}; give a number of parts, at least 1.")
    if parts > 1 and not separable:
        raise ValueError(
            f"{key} is {parts}, but the loss of {method} is not known to be a mean over examples "
            "(Method.separable), so a batch cannot be computed in parts; give 1."
        )
