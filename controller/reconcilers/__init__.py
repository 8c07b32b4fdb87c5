"""Reconcilers: read the caches, let the domain decide, carry its plan out."""
