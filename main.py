"""`ltrobust` in a checkout, without an installation.

python main.py --config=configs/digits.py [--workdir=DIR] [--mode=MODE] [--config.key=value ...]
python main.py VERB ...

`python main.py --help` lists the verbs.
"""

from ltrobust.commands import main

if __name__ == "__main__":
    main.run()
