"""Device side."""
