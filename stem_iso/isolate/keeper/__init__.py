"""The keeper: the small process that is the isolates' parent, and that enforces limits where the core cannot."""
