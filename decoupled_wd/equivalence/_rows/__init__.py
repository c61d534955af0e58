"""The rows of the catalogue, by theme."""
