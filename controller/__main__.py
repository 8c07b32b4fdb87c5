"""`python -m controller` is `vmsim controller`."""

import sys

from controller.cli.entry import main

if __name__ == "__main__":
    main(["controller", *sys.argv[1:]])
