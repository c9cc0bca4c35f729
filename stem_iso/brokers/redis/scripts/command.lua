-- KEYS[1] workers · ARGV[1] what is to be done:
--   send, life, id, body, channel              -> 1       kept for so many seconds; it wakes the workers
--   list, worker, age, life                    -> { body, ... }  those that this worker has not replied to, oldest first, none from before it began
--   reply, life, id, worker, body              -> 0 | 1   0: the command is kept no more
--   replies, id                                -> { body, ... }
--   log, most, life, body                      -> 1       an action, kept among so many
--   actions, limit                             -> { body, ... }  newest first
--
-- P:cm ZSET id of a command by its arrival · P:cb HASH id -> body · P:cr:<id> HASH worker -> body · P:ac LIST of actions
allow_at_maxmemory()
local verb = ARGV[1]
local C, B = P .. ':cm', P .. ':cb'
local MOST = 1000

if verb == 'log' then
  if call('LINDEX', P .. ':ac', 0) ~= ARGV[4] then call('LPUSH', P .. ':ac', ARGV[4]) end -- sent again: it is there
  call('LTRIM', P .. ':ac', 0, tonumber(ARGV[2]) - 1)
  call('EXPIRE', P .. ':ac', ARGV[3])
  return 1
elseif verb == 'actions' then
  return call('LRANGE', P .. ':ac', 0, tonumber(ARGV[2]) - 1)
elseif verb == 'replies' then
  return call('HVALS', P .. ':cr:' .. ARGV[2])
elseif verb == 'reply' then
  if not call('ZSCORE', C, ARGV[3]) then return 0 end
  call('HSET', P .. ':cr:' .. ARGV[3], ARGV[4], ARGV[5])
  call('EXPIRE', P .. ':cr:' .. ARGV[3], ARGV[2])
  return 1
elseif verb == 'send' then
  local old = call('ZRANGEBYSCORE', C, '-inf', number(NOW - tonumber(ARGV[2])))
  local many = call('ZCARD', C) - #old - MOST
  if many >= 0 then
    for _, id in ipairs(call('ZRANGE', C, #old, #old + many)) do old[#old + 1] = id end
  end
  for _, id in ipairs(old) do
    call('ZREM', C, id)
    call('HDEL', B, id)
  end
  call('ZADD', C, 'NX', number(NOW), ARGV[3])
  call('HSET', B, ARGV[3], ARGV[4])
  call('EXPIRE', C, ARGV[2])
  call('EXPIRE', B, ARGV[2])
  notify(ARGV[5])
  return 1
end

local found = {}
local since = NOW - math.min(tonumber(ARGV[3]), tonumber(ARGV[4]))
for _, id in ipairs(call('ZRANGEBYSCORE', C, number(since), '+inf')) do
  if call('HEXISTS', P .. ':cr:' .. id, ARGV[2]) == 0 then found[#found + 1] = call('HGET', B, id) or nil end
end
return found
