"""`ddnn site`: certificates, rights and signing keys of a site."""

from ddnn.cli.site.command import site

__all__ = ["site"]
