"""One program per claim; each prints a ratio measured in one run, beside its baseline."""
