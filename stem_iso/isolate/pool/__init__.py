"""`IsolatePool`: isolation without a queue, as a `concurrent.futures.Executor`."""
