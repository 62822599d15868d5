"""The parts of a measurement, each a list of steps."""
