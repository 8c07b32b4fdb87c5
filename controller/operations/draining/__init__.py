"""Draining nodes: cordon them, and move every VM off them, one migration each."""
