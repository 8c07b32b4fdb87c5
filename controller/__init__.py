"""Simulated virtual machines on Kubernetes: the controller and its command line."""

__version__ = "0.1.0"
