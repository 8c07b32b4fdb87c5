"""`make bench`: compares this controller with its alternatives, on one machine, in one run."""
