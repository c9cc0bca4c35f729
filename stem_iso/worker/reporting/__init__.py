"""What happened in a worker, told: events, signals, log records."""
