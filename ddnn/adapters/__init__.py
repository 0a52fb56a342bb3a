"""One third-party package per file."""
