"""The fit of each codec that has arrays: a module of the codec's name."""
