"""Build side: from a trained checkpoint to the bundle and the memory store that a device runs."""
