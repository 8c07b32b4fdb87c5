"""Lets `python -m controller.controlplane` run the command line."""

from controller.controlplane.cli import main

if __name__ == "__main__":
    main()
