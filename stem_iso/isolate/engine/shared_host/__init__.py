"""Inline hosts: isolates that run many calls at a time."""
