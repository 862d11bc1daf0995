"""The table of PyTorch modules: that of the newest file, with refusals in words; and none is needed."""

import json

from tools import torch_table

ROW = {"package": "torchvision", "parameters": 11_200_000, "images": 64}
MEASURED = {
    "created": "2026-11-27T20:00:00+00:00",
    "machine": {"processor": "AMD EPYC", "threads": 2},
    "software": {"commit": "0123456789abcdef", "torch": "2.13.0", "jax": "0.10.2"},
    "packages": {"torchax": "0.0.13"},
    "seed": 0,
    "rows": [
        ROW | {"architecture": "ResNet-18", "logits": 1e-6, "gradients": 2e-6, "compile": 30.2, "quick": 4.6},
        ROW | {"architecture": "Own", "refused": "Own holds complex numbers."},
    ],
    "golden": [{"network": "cnn_a", "images": 64, "reference": 20, "robust": 21, "differing": [5]}],
}


def test_the_newest_file_makes_the_table(tmp_path):
    page, folder = tmp_path / torch_table.PAGE, tmp_path / "benchmarks" / "results"
    page.parent.mkdir(parents=True)
    folder.mkdir(parents=True)
    page.write_text("Before\n<!-- torch_modules:begin -->\nold\n<!-- torch_modules:end -->\nAfter\n")
    torch_table.main(tmp_path)
    assert f"begin -->\n{torch_table.NOT_MEASURED}\n<!--" in page.read_text()
    (folder / "torch_modules-a.json").write_text(json.dumps(MEASURED))
    (folder / "torch_modules-b.json").write_text(json.dumps(MEASURED | {"created": "2025-01-01T00:00:00+00:00"}))
    torch_table.main(tmp_path)
    text = page.read_text()
    assert "From `benchmarks/results/torch_modules-a.json`: commit 0123456789ab, seed 0, AMD EPYC" in text
    assert "| ResNet-18 | torchvision | 11.2 M | 1e-06 | 2e-06 | 30 | 5 | 64 |" in text
    assert "| Own | torchvision | 11.2 M | refused |" in text
    assert "Own: Own holds complex numbers.\n" in text
    assert "| cnn_a | 64 | 20 | 21 | 5 |" in text
    assert text.startswith("Before\n")
    assert text.endswith("After\n")
