"""Caches, reflectors and observers of a cluster, and the sums derived from them."""
