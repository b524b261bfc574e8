"""Experiments as records: everything that decides a result, checked, to JSON and back."""
