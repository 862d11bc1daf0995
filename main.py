"""Trains a balanced teacher and a distilled student, evaluates or diagnoses a checkpoint, or draws the page of a run.

python main.py --config=configs/digits.py [--workdir=DIR] [--mode=MODE] [--config.key=value ...]
python main.py --config=configs/published.py:robal_n ...

Several processes, one per host: --coordinator=HOST:PORT --num_processes=N --process_id=K, on a Cloud TPU nothing
(docs/tpu.md).
"""

from ltrobust.commands import main

if __name__ == "__main__":
    main.run()
