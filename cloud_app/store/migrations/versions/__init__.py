"""One file per revision; a published one is not changed any more."""
