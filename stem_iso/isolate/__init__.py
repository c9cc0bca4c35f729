"""The isolation runtime: runs one call in one process, and kills it with everything it spawned. Knows neither tasks nor brokers."""
