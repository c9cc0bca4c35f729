-- KEYS[1] a queue · ARGV ids -> how many of them were dead
local dropped = call('HDEL', P .. ':x', unpack(ARGV))
call('ZREM', P .. ':xd', unpack(ARGV))
return dropped
