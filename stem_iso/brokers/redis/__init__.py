"""Redis, from 6.2 up, one server or a cluster: the broker for more than one machine.

address      what a URL says: servers, user, password, TLS
connection   one connection; the only place that knows redis-py
links        calls of scripts and commands, to one server
cluster      the same to a cluster: slots, redirections, failover
parked       a connection on which a blocking command was left
loading      scripts/*.lua, each behind common.lua, and their digests
"""
