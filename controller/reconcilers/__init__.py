"""Reconcilers: read the caches, ask the domain what to do, do it."""
