"""The job done with Kopf. Runs in an environment of its own (requirements.txt)."""
