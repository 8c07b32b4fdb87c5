"""Runs the command line: `python -m hack.bench`."""

from hack.bench.cli import main

if __name__ == "__main__":
    main()
