"""Every file reader against files that lie: `python -m fuzz` from a checkout (see `__main__`)."""
