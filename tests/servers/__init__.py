"""Real Redis servers for tests: found, started, hurt and stopped here.

    finding.py   which redis-server binaries this machine has, by version
    server.py    one server: a folder, a unix socket, a loopback port; stopped, killed, frozen, started again where it was
    cluster.py   three masters and three replicas
    proxy.py     a loopback proxy that stalls, delays and cuts
    fixtures.py  what tests ask for

STEM_ISO_TEST_REDIS_URL names a server to run the contract on instead. It is flushed between tests, so it must name an empty database. What
kills servers starts its own even then.
"""
