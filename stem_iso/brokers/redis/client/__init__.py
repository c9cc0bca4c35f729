"""What speaks to Redis: addresses, connections, scripts, one server or a cluster. Knows nothing of tasks."""
