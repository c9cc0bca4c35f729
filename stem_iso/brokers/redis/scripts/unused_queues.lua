-- KEYS[1] the registry -> names of queues that nobody has used for long, some hundreds at most
return call('ZRANGEBYSCORE', KEYS[1], '-inf', NOW, 'LIMIT', 0, 500)
