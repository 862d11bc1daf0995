"""Evaluations read back from the verdicts of a store."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltrobust.analysis.evaluation import Evaluation
from ltrobust.evaluation import lines, protocols, store, verdict
from ltrobust.evaluation.lines import AttackVerdicts
from ltrobust.evaluation.session import recall
from ltrobust.sanity.rules import Item
from ltrobust.threat import Threat


def evaluation(
    provenance: Mapping[str, Any],
    verdicts: Mapping[str, AttackVerdicts],
    sanity: Sequence[Item] = (),
) -> Evaluation:
    """The evaluation that wrote a store, with its images in the order of their ids.

    Args:
      provenance, verdicts: from `store.read`.
      sanity: items of the sanity panel, which are not in the store.

    Raises:
      ValueError: images whose verdict is not there yet; or a protocol that is another one in this version.
    """
    name = provenance["protocol"]["name"]
    protocol = protocols.get(name)
    if protocols.plain(protocol) != provenance["protocol"]:
        raise ValueError(f"the protocol {name} of this version is not the one of the verdicts; evaluate again.")
    ids, labels, clean = store.final(provenance, verdicts, "clean")
    predictions, records = {"clean": clean}, {"clean": verdict.unseen(len(labels))}
    recall(verdicts["clean"], ids, np.arange(len(labels)), records["clean"])
    for attack in protocol.attacks:
        column = predictions[attack.after[-1] if attack.after else "clean"].copy()
        rows = np.flatnonzero(column == labels)
        record = verdict.unseen(len(labels))
        waiting = recall(verdicts.get(attack.name, lines.empty(attack.name)), ids, rows, record)
        if len(waiting):
            raise ValueError(f"{attack.name} has no verdict on image {ids[waiting[0]]} yet; finish the evaluation.")
        column[rows] = record["prediction"][rows]
        predictions[attack.name], records[attack.name] = column, record
    return Evaluation(
        ids=ids,
        labels=labels,
        num_classes=provenance["num_classes"],
        protocol=protocol,
        threat=Threat(**provenance["threat"], any_radius=True),
        predictions=predictions,
        records=records,
        sanity=tuple(sanity),
    )
