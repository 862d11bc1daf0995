"""What a number means: metrics, intervals, cards, comparisons, diagnosis."""
