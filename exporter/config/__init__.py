"""Configurations: the package's own YAML files by name, or a file of the user's."""
