"""Lets `python -m hack.demo` run the demonstration."""

from hack.demo.run import main

if __name__ == "__main__":
    main()
