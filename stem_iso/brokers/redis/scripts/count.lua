-- KEYS[1] a queue · ARGV[1] the life of a dead letter, seconds -> queued, delayed, running, dead
--
-- What has come due is queued, though nobody has moved it yet. The lists are not counted: ids of what was revoked lie in them until they
-- are met.
local running = call('HLEN', L)
local delayed = call('ZCOUNT', D, '(' .. number(NOW), '+inf')
local queued = call('HLEN', M) - call('HLEN', P .. ':w') - running - delayed
return { queued, delayed, running, call('ZCOUNT', P .. ':xd', '(' .. number(NOW - tonumber(ARGV[1])), '+inf') }
