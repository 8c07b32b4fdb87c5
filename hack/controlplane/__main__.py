"""Lets `python -m hack.controlplane` run the command line."""

from hack.controlplane.cli import main

if __name__ == "__main__":
    main()
