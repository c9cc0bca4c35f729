"""Reports of what happens in a worker: events, signals, log records."""
