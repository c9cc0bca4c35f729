-- KEYS[1] a queue · ARGV[1] number of an outbox entry, then end notices, each written once -> 1, 0 where it was gone
local there = call('HDEL', P .. ':out', ARGV[1])
if there == 1 and #ARGV > 1 then
  for i = 2, #ARGV do
    call('RPUSH', P .. ':a', struct.pack('<d', NOW) .. 'M' .. ARGV[i])
  end
  call('LTRIM', P .. ':a', -10000, -1)
  call('EXPIRE', P .. ':a', 60) -- older ones are reported by nobody
end
if call('HLEN', P .. ':out') == 0 then call('EXPIRE', P .. ':on', DAY) end
return there
