"""Coded redundancy: what vanishing and slow workers cost, and what the codes cost."""
