-- KEYS[1] a queue · ARGV[1] the life of a dead letter, seconds -> how many of them were dropped, 1000 at most
--
-- All else that expires, the server drops by itself: statuses, locks, and lists rung for waiters that died.
local old = call('ZRANGEBYSCORE', P .. ':xd', '-inf', number(NOW - tonumber(ARGV[1])), 'LIMIT', 0, 1000)
if #old > 0 then
  call('HDEL', P .. ':x', unpack(old))
  call('ZREM', P .. ':xd', unpack(old))
end
if call('EXISTS', M) == 0 then call('DEL', unpack(lists())) end -- ids of what has ended in them, that no lease has come by
return #old
