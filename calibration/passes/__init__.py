"""Rewrites of an exported graph for a precision, one a file; import each from its own module."""
