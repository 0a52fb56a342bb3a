"""Coded computation: any s of n workers may vanish and the answer is the same."""
