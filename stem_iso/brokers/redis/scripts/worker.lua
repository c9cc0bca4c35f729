-- KEYS[1] gossip · ARGV[1] what is to be done:
--   beat, life, id, info   -> 1        this worker lives, for so many seconds
--   goodbye, life, id      -> 0 | 1    it is gone
--   list, life             -> { id, info, seen, ... }
--
-- P:w HASH id -> info, P:ws ZSET id by its last beat. Both expire with the last worker.
drain()
local verb, life, id = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local W, WS = P .. ':w', P .. ':ws'
if verb == 'goodbye' then
  call('ZREM', WS, id)
  return call('HDEL', W, id)
end
local late = '(' .. number(NOW - life)
if verb == 'beat' then
  local silent = call('ZRANGEBYSCORE', WS, '-inf', number(NOW - life), 'LIMIT', 0, 1000)
  if #silent > 0 then
    call('HDEL', W, unpack(silent))
    call('ZREM', WS, unpack(silent))
  end
  call('HSET', W, id, ARGV[4])
  call('ZADD', WS, number(NOW), id)
  call('PEXPIRE', W, life * 1000)
  call('PEXPIRE', WS, life * 1000)
  return 1
end
local living, found = call('ZRANGEBYSCORE', WS, late, '+inf', 'WITHSCORES'), {}
for i = 1, #living, 2 do
  found[#found + 1] = living[i]
  found[#found + 1] = call('HGET', W, living[i]) or ''
  found[#found + 1] = living[i + 1]
end
return found
