"""Canvases: tasks that follow one another, as values, and what the end of one part moves. Pure."""
