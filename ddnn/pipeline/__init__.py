"""Pipeline training: one network trained over unequal devices, which may be lost."""
