"""`python -m ltrobust`: the command `ltrobust`."""

import sys

from ltrobust import cli

if __name__ == "__main__":
    __doc__ = cli.__doc__  # what --help prints
    sys.argv[0] = "ltrobust"  # what cards and messages call the program
    cli.run()
