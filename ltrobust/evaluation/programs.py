"""The compiled programs of an evaluation: one set for each network, one search program for each kind of attack."""

import dataclasses
import functools
from collections.abc import Callable

import jax

from ltrobust.attacks import search as searches
from ltrobust.attacks.search import Lanes, Problem, Search
from ltrobust.evaluation.judge import Apply, judge
from ltrobust.threat import Threat


class Programs:
    """Programs of one network, compiled when first called; radius, steps, scales and losses are traced.

    Attributes:
      judge: `(variables, points, images, labels, radius) -> Judgement`.
      refill: `(old, new, replaced) -> Lanes`; `old` is donated.
      release: `(lanes, leave, resume) -> Lanes`; `lanes` is donated.
    """

    def __init__(self, apply: Apply, exact_apply: Apply, threat: Threat, num_classes: int) -> None:
        self._apply, self._threat = apply, threat
        self.judge = jax.jit(functools.partial(judge, exact_apply, num_classes, threat))
        self.refill = jax.jit(searches.refill, donate_argnums=0)
        self.release = jax.jit(_release, donate_argnums=0)
        self.begin = functools.cache(self._compile_begin)
        self._work = functools.cache(self._compile_work)

    def work(self, search: Search, *, restarts: bool) -> Callable:
        """`(variables, lanes, settings, limit, min_resting, until) -> lanes`; `restarts`: a lane makes several runs."""
        return self._work(self.shared(search, restarts=restarts))

    def shared(self, search: Search, *, restarts: bool) -> Search:
        """What one program works for: all starts of a search, and all numbers of runs where no lane makes several."""
        # Without its start, a search equals that of every other start: all PGD attacks share one compiled program.
        return dataclasses.replace(search, start=None, restart=search.restart if restarts else None)

    def _compile_begin(self, search: Search) -> Callable:
        """`(images, labels, logits, ids, root, settings, occupied, first) -> Lanes`, at the start of run `first`."""

        def start(images, labels, logits, ids, root, settings, occupied, first) -> Lanes:
            problem = Problem(images, labels, logits, searches.keys_of(root, ids))
            return searches.begin(search, problem, settings, self._threat, occupied, first)

        return jax.jit(start)

    def _compile_work(self, search: Search) -> Callable:
        """The program of `work`."""

        def run(variables, lanes, settings, limit, min_resting, until) -> Lanes:
            return searches.work(
                search,
                lambda points: self._apply(variables, points),
                lanes,
                settings,
                self._threat,
                evaluations=limit,
                min_resting=min_resting,
                until=until,
            )

        return jax.jit(run, donate_argnums=1)


def _release(lanes: Lanes, leave: jax.Array, resume: jax.Array) -> Lanes:
    """Lanes after the verdicts: those at `leave` are empty, those at `resume` search again."""
    claimed = lanes.state.claimed & ~resume
    return lanes._replace(occupied=lanes.occupied & ~leave, state=lanes.state._replace(claimed=claimed))
