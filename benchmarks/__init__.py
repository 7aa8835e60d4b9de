"""The package beside its peers: one script for each row of the table of targets, all with `python -m benchmarks`."""
