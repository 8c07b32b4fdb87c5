"""`make bench`: this controller beside what a user would pick instead, on one machine, in one run."""
