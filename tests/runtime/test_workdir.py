"""The folder of a run: what is recorded when it is made, and which values are refused before."""

import json

import pytest

from ltrobust import recipes
from ltrobust.runtime import workdir


@pytest.fixture
def config():
    return recipes.load("configs/digits.py").unlock()


@pytest.mark.parametrize(
    ("given", "recorded"),
    [("student", "student"), ("runs/first", "{here}/runs/first"), ("/disk/first", "/disk/first"), ("~/a", "~/a")],
)
def test_paths_are_recorded_so_that_they_mean_the_same_from_another_folder(
    config, tmp_path, monkeypatch, given, recorded
):
    monkeypatch.chdir(tmp_path)
    config.eval.checkpoint, config.data.dir = given, "images"
    workdir.claim(tmp_path / "run", workdir.plain(config))
    result = json.loads((tmp_path / "run" / "config.json").read_text())
    assert result["eval"]["checkpoint"] == recorded.format(here=tmp_path)
    assert result["data"]["dir"] == f"{tmp_path}/images"


@pytest.mark.parametrize("other", [0, 1])
def test_a_workdir_that_another_process_makes_at_the_same_moment_is_compared(config, tmp_path, monkeypatch, other):
    real, theirs = workdir.write_json, workdir.plain(config) | {"seed": other}

    def late(path, value, *, new):
        real(path, theirs)
        real(path, value, new=new)

    monkeypatch.setattr(workdir, "write_json", late)
    if other == config.seed:
        workdir.claim(tmp_path, workdir.plain(config))
    else:
        with pytest.raises(ValueError, match="holds a run of another configuration:\n  seed: 1 -> 0"):
            workdir.claim(tmp_path, workdir.plain(config))
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == other


def test_values_of_an_optimiser_s_options_are_optax_s(config):
    config.student.optimizer.options.b1 = None
    workdir.check_values(config)
    config.student.optimizer.weight_decay = None
    with pytest.raises(ValueError, match=r"student\.\S+ is None; give it a value"):
        workdir.check_values(config)


@pytest.mark.parametrize("key", ["seed", "data.split_seed", "eval.seed"])
def test_a_seed_is_at_least_0(config, key):
    config.update_from_flattened_dict({key: 0})
    workdir.check_values(config)
    config.update_from_flattened_dict({key: -1})
    with pytest.raises(ValueError, match=f"{key} is -1; a seed is at least 0"):
        workdir.check_values(config)
