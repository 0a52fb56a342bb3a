"""What runs machines: the loop, its transport, files of bundles and plans, and the simulation."""
