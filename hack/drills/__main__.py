"""Lets `python -m hack.drills NAME` run a drill."""

from hack.drills.cli import main

if __name__ == "__main__":
    main()
