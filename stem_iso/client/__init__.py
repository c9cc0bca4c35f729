"""The producer: declare tasks, enqueue, ask for results, compose, schedule. Knows brokers and tasks."""
