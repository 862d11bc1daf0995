"""One attack of each kind, short, on the linear fixture: an evaluation of seconds."""

import numpy as np
from linear import apply, fixture

import ltrobust
from ltrobust.evaluation import protocols
from ltrobust.evaluator import make_evaluator

ROWS = np.arange(0, 1000, 5)
# One attack of each kind, short, with the order and survivors of `standard`.
SHORT = protocols.Protocol(
    "short",
    (
        protocols.PGD20,
        protocols.Apgd("apgd-ce", "ce", steps=30),
        protocols.Apgd("apgd-t", "targeted_dlr", steps=30, targets=9, after=("apgd-ce",)),
        protocols.Fab("fab-t", steps=20, after=("apgd-ce", "apgd-t")),
        protocols.Square("square", queries=200, after=("apgd-ce", "apgd-t", "fab-t")),
    ),
    combined=(("autoattack", ("apgd-ce", "apgd-t", "fab-t", "square")),),
)


def run(folder=None, batch_size=64, seed=0, function=apply, **options):
    """The short protocol on every fifth image of the linear fixture."""
    weights, images, labels = fixture()
    evaluator = make_evaluator(
        function, protocol=SHORT, threat=ltrobust.Threat(), num_classes=10, batch_size=batch_size, seed=seed, **options
    )
    return evaluator(weights, images[ROWS], labels[ROWS], ids=ROWS, store=folder)
