-- KEYS[1] a queue · ARGV[1] the life of a dead letter, seconds, [2] since when (wall clock) or '', then ids: of these alone, where any are given
-- -> now, then id, died, id, died, ...
local alive, since = NOW - tonumber(ARGV[1]), tonumber(ARGV[2])
local found = { number(NOW) }
if #ARGV > 2 then
  for k, died in ipairs(call('ZMSCORE', P .. ':xd', unpack(ARGV, 3))) do
    if died and tonumber(died) > alive and tonumber(died) >= (since or alive) then
      found[#found + 1] = ARGV[k + 2]
      found[#found + 1] = died
    end
  end
  return found
end
local from = since and since > alive and number(since) or '(' .. number(alive)
found = call('ZRANGEBYSCORE', P .. ':xd', from, '+inf', 'WITHSCORES')
table.insert(found, 1, number(NOW))
return found
