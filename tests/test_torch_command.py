"""`ltrobust evaluate --torch`: card, page, verdict store and resume, as for networks that were trained here."""

import hashlib
import importlib.util
import json
import pathlib
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
import torch_toy  # noqa: E402 - needs PyTorch
from absl import app, flags  # noqa: E402

import ltrobust as lt  # noqa: E402
from ltrobust.analysis import cards  # noqa: E402
from ltrobust.commands import launch, main, torch_module  # noqa: E402
from ltrobust.evaluation import store  # noqa: E402

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torchax") is None, reason="needs torchax: pip install -e '.[torch]'"
)
SHORT = ("--config.eval.protocol=validation", "--config.eval.limit=2", "--config.threat.radius=2.0")


@pytest.fixture
def evaluate(monkeypatch, tmp_path, capsys):
    """A function that calls the command in this process: status, and what it printed."""
    monkeypatch.setattr(app, "run", lambda main, argv, flags_parser: main(flags_parser(argv)))
    monkeypatch.chdir(tmp_path)

    def call(*words):
        for name in [name for name in flags.FLAGS if name.startswith("config.")]:
            delattr(flags.FLAGS, name)
        for name in launch.FLAGS:
            flags.FLAGS[name].unparse()
        flags.FLAGS.unparse_flags()
        monkeypatch.setattr(sys, "argv", ["ltrobust", "evaluate", *words])  # in which absl finds --config.KEY
        status = 0
        try:
            main.call(["evaluate", *words])
        except SystemExit as end:
            status = end.code or 0
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    yield call
    flags.FLAGS.unparse_flags()


def test_a_module_gets_card_page_and_verdicts_and_resumes(evaluate, tmp_path):
    weights = tmp_path / "net.pt"
    torch.save({"epoch": 3, "state_dict": torch_toy.digits().state_dict()}, weights)
    source, workdir = "torch_toy:Residual(num_classes=10, channels=1)", tmp_path / "run"
    name = f"net-{hashlib.sha256(weights.read_bytes()).hexdigest()[:8]}"
    words = (f"--torch={source}", f"--weights={weights}", f"--workdir={workdir}", *SHORT)
    status, text = evaluate("--config=configs/digits.py", *words)
    assert status == 0, text
    assert "Residual: logits differ from PyTorch's by" in text
    card = cards.read(workdir / "results" / f"validation-{name}.json")
    assert card.model.name == f"torch:{source}"
    assert card.model.parameters == sum(weight.numel() for weight in torch_toy.digits().parameters())
    assert card.training == {}
    assert card.config["weights"]["file"] == "net.pt"
    assert str(tmp_path) not in json.dumps(card.command)
    network = card.networks[f"torch/{name}"]
    assert network.columns["pgd20"].total == (2,) * 10
    assert f"torch/{name}" in (workdir / "report.html").read_text()
    # The same numbers as from Python, image by image.
    evaluation = lt.open_run(workdir).evaluation(f"torch/{name}")
    assert (evaluation.counts("pgd20").correct == network.columns["pgd20"].correct).all()
    kept = pathlib.Path(workdir / network.verdicts.folder)
    before = (kept / "verdicts.jsonl").read_bytes()
    # The workdir records the configuration, and verdicts that exist are not computed again.
    status, text = evaluate(*words)
    assert status == 0, text
    assert (kept / "verdicts.jsonl").read_bytes() == before
    assert len(store.read(kept)[1]["pgd20"]) > 0
    again = cards.read(workdir / "results" / f"validation-{name}-2.json")
    assert again.networks[f"torch/{name}"] == network
    status, text = evaluate(*(word.replace("num_classes=10", "num_classes=9") for word in words))
    assert status == 1
    assert "net.pt: head.weight has shape [10, 8], in Residual [9, 8]" in text


def test_mistakes_end_before_anything_is_written(evaluate, tmp_path):
    workdir = tmp_path / "run"
    for words, wanted, message in (
        (["--weights=net.pt"], 1, "--weights is 'net.pt', but there is no such file"),
        (["--torch=torch_toy:digits", "--key=ema"], 1, "--key is 'ema', but no file is given; add --weights=FILE"),
        (["--torch=torch_toy:digits", "--weights=net.pt"], 1, "net.pt"),
        (["--torch=torch_toy:digits()()"], 1, "keyword arguments that are plain values"),
        (["--torch=torch_toy:Residual(channels=1)"], 1, "gives 5 logits; the data have 10 classes"),
        (["--torch=torch_toy:Attention(num_classes=10)"], 1, "expected input[4, 1, 8, 8] to have 3 channels"),
    ):
        status, text = evaluate("--config=configs/digits.py", f"--workdir={workdir}", *words, *SHORT)
        assert status in (wanted, 2), text
        assert message in text
        assert "Traceback" not in text
        assert not workdir.exists()


def test_a_file_of_code_is_recorded_by_name_and_digest(tmp_path):
    file = tmp_path / "net.py"
    file.write_text("make = None\n")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    assert torch_module.recorded_name(f"{file}:make(width=16)") == f"torch:net.py@{digest}:make(width=16)"
    assert torch_module.recorded_name("package.net:make") == "torch:package.net:make"
