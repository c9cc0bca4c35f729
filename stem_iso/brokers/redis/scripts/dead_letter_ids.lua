-- KEYS[1] a queue · ARGV[1] the life of a dead letter, seconds, ARGV[2] since when (wall clock) or '' -> now, then id, died, id, died, ...
local alive, since = NOW - tonumber(ARGV[1]), tonumber(ARGV[2])
local from = since and since > alive and number(since) or '(' .. number(alive)
local found = call('ZRANGEBYSCORE', P .. ':xd', from, '+inf', 'WITHSCORES')
table.insert(found, 1, number(NOW))
return found
