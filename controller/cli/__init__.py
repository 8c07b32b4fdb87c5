"""The commands of `vmsim`: parse and check arguments, call the operations, print results and one-line errors."""
