"""`ddnn label`: a page on this machine on which recorded pictures get their classes."""

from ddnn.cli.label.command import label

__all__ = ["label"]
