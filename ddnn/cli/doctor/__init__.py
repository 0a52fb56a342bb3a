"""`ddnn doctor`: checks of every hop between a node and its site, one module per subject."""

from ddnn.cli.doctor.command import doctor

__all__ = ["doctor"]
