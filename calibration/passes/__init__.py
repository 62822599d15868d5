"""Rewrites between the FP32 graph and the one that a device runs, one a file."""
