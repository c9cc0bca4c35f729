"""The shipped plugin's fixtures, as a user takes them in (only the root's conftest may name plugins)."""

from stem_iso.testing.plugin import stem_app, stem_worker

__all__ = ["stem_app", "stem_worker"]
