"""The kill harness at its smallest: two kills, one while a checkpoint is written, one in the evaluation."""

import os

import harness
import listed
import pytest

from tools import run_digests

# One epoch of each phase, few images.
CONFIG = [
    *harness.CONFIG,
    "--config.model.name=own:Normed",
    "--config.teacher.epochs=3",
    "--config.student.epochs=3",
    "--config.student.ema_decay=0.0",
    "--config.student.method=at_bsl",  # soon traced
    "--config.student.initialize=teacher",
    "--config.eval.protocol=validation",
    "--config.eval.limit=5",
]
# Files that two workers decode, cropped at random.
FILES = [
    "--config.data.name=image_list",
    "--config.data.image_size=8",
    "--config.data.imbalance_ratio=0.0",
    "--config.data.workers=2",
    "--config.student.augmentation.policy=random_resized_crop",
]


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("source", ["device", "host", "files"])
def test_killed_while_writing_and_started_again_it_ends_the_same(tmp_path, monkeypatch, source):
    monkeypatch.setenv("PYTHONPATH", str(harness.ROOT / "tests"))
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
    if source == "files":
        lists = listed.write(tmp_path / "images", train=[80, 60, 40], test=[5, 5, 5])
        config = [*CONFIG, *FILES, f"--config.data.dir={tmp_path / 'images'}"]
        config += [f"--config.data.lists.{part}={file}" for part, file in lists.items()]
    else:
        config = [*CONFIG, f"--config.data.residence={source}"]
    harness.finish(tmp_path / "whole", config, cache)
    whole = run_digests.of_run(tmp_path / "whole")
    assert {"arrays of teacher/averaged", "arrays of student/rest", "record student/3", "card networks"} <= whole.keys()
    kills = [
        harness.kill(tmp_path / "killed", config, cache, moment=0.0, aimed=True, reach=stage)
        for stage in ("student", "evaluation")
    ]
    assert all(
        kill is not None and kill.stage == stage for kill, stage in zip(kills, harness.STAGES[1:], strict=True)
    ), kills
    harness.finish(tmp_path / "killed", config, cache)
    assert run_digests.differences(whole, run_digests.of_run(tmp_path / "killed")) == []
    # The comparison can fail.
    assert run_digests.differences(whole, whole | {"card data": "0"}) == ["card data"]
