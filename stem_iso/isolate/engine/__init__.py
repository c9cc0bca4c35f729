"""The engine: one thread in the core that runs calls in isolates, watches their deadlines, and ends them."""
