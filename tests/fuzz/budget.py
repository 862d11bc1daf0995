"""How many inputs a property is tried on, and what a refusal has to say."""

import hypothesis


def tries(number: int, **options) -> hypothesis.settings:
    """`number` inputs in the default profile (of 100), more in proportion in a profile with more."""
    return hypothesis.settings(max_examples=number * hypothesis.settings.default.max_examples // 100, **options)


def says(error: Exception, *words: str) -> None:
    """Checks that the message speaks of what was given."""
    assert any(word in str(error) for word in words), f"{type(error).__name__}: {error}"
