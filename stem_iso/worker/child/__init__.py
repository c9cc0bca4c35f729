"""The worker's half of an isolate: what runs a handler there."""
