"""`python -m ltrobust`: the command `ltrobust`."""

import sys

from ltrobust.commands import main

if __name__ == "__main__":
    sys.argv[0] = "ltrobust"  # what cards and messages call the program
    main.run()
