"""What the benchmarks share: their reports, clients, baselines and figures."""
