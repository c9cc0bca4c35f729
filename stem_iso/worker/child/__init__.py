"""The worker's half of isolates and shared hosts: runs the handlers there."""
