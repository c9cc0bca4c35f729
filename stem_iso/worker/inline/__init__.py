"""Inline handlers, run in this process: coroutines on one loop, functions in threads."""
