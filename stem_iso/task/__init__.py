"""Values and decisions of the queue: no I/O, no clock, no dice, no asyncio. `now` and chance come in as arguments."""
