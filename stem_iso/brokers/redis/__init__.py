"""Redis, from 6.2 up, one server or a cluster: the broker for more than one machine."""
