"""Pipeline training measured: see __main__.py."""
