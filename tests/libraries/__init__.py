"""Comparison with the libraries themselves: a job of its own, see CONTRIBUTING.md."""
