"""Redis client: addresses, connections, scripts, one server or a cluster. Knows nothing of tasks."""
