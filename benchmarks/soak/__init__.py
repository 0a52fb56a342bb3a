"""A site under random faults: is every sample answered in time, and does nothing grow?"""
