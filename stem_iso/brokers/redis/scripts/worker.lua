-- KEYS[1] workers · ARGV[1] what is to be done:
--   beat, life, id, machine, boot, info   -> 1        this worker lives, for so many seconds
--   remove, life, id, machine, boot       -> 0 | 1    it is gone
--   remove_dead, life, id, machine, boot  -> 0 | 1    it is dead; one of the same id and another boot lives on
--   neighbours, life, '', machine         -> { info, ... }    those of this machine, dead or alive
--   list, life                            -> { id, info, seen, seconds since then, ... }
--
-- P:w HASH id -> info, P:ws ZSET id by its last beat. Both expire with the last worker. P:p:<machine> HASH boot -> info: of those that have
-- not been removed, so that others on the machine find the dead among them; a day after the last beat from there nobody is left to look.
allow_at_maxmemory()
local verb, life, id, machine, boot = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local W, WS, NEAR = P .. ':w', P .. ':ws', machine and machine ~= '' and P .. ':p:' .. machine
if verb == 'neighbours' then return NEAR and call('HVALS', NEAR) or {} end
if verb == 'remove' or verb == 'remove_dead' then
  if NEAR then call('HDEL', NEAR, boot) end
  local info = call('HGET', W, id)
  if verb == 'remove_dead' and not (info and string.find(info, boot, 1, true)) then return 0 end
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
  call('HSET', W, id, ARGV[6])
  call('ZADD', WS, number(NOW), id)
  call('PEXPIRE', W, life * 1000)
  call('PEXPIRE', WS, life * 1000)
  if NEAR then
    call('HSET', NEAR, boot, ARGV[6])
    call('EXPIRE', NEAR, DAY)
  end
  return 1
end
local living, found = call('ZRANGEBYSCORE', WS, late, '+inf', 'WITHSCORES'), {}
for i = 1, #living, 2 do
  found[#found + 1] = living[i]
  found[#found + 1] = call('HGET', W, living[i]) or ''
  found[#found + 1] = living[i + 1]
  found[#found + 1] = number(math.max(0, NOW - tonumber(living[i + 1])))
end
return found
