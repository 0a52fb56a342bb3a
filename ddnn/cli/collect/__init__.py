"""`ddnn collect`: records pictures of a site's cameras to train with."""

from ddnn.cli.collect.command import collect

__all__ = ["collect"]
