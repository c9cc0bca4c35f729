-- KEYS[1] workers · ARGV[1] what is to be done:
--   subscribe, life, name  -> id of the newest event there was: this listener lives for so many seconds
--   unsubscribe, name      -> 1
--   listened               -> 0 | 1         whether anybody listens
--   emit, most, age, event, ... -> 0 | 1    kept for those who listen; 0 where nobody does
--
-- P:el ZSET listener by the end of its life, P:ev STREAM of the events: field '' -> event. Both expire when nobody emits or listens.
local verb = ARGV[1]
local EL, EV = P .. ':el', P .. ':ev'
if verb == 'subscribe' then
  call('ZADD', EL, number(NOW + tonumber(ARGV[2])), ARGV[3])
  call('PEXPIRE', EL, tonumber(ARGV[2]) * 1000)
  if call('EXISTS', EV) == 0 then
    return '0-0'
  end
  local about = call('XINFO', 'STREAM', EV)
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then
      return about[i + 1]
    end
  end
end
if verb == 'unsubscribe' then
  call('ZREM', EL, ARGV[2])
  if call('EXISTS', EL) == 0 then
    call('DEL', EV)
  end
  return 1
end
call('ZREMRANGEBYSCORE', EL, '-inf', number(NOW)) -- a listener that was killed is forgotten here, not by the expiry that others renew
if call('EXISTS', EL) == 0 then
  return 0
end
if verb == 'emit' then
  for i = 4, #ARGV do
    call('XADD', EV, 'MAXLEN', '~', ARGV[2], '*', '', ARGV[i])
  end
  call('XTRIM', EV, 'MINID', '~', string.format('%.0f', (NOW - tonumber(ARGV[3])) * 1000))
  call('PEXPIRE', EV, tonumber(ARGV[3]) * 1000)
end
return 1
