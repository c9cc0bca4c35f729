-- KEYS[1] a queue · ARGV[1] when the relay began (seconds, by a server), then id, record, link of each part -> 1, or -1: that is long ago
--
-- They wait for what stands before them, and are in no list. What is here, or was, is left alone: its tombstone outlives any relay.
allow_at_maxmemory()
if NOW > tonumber(ARGV[1]) + 60 then return -1 end
for i = 2, #ARGV, 3 do
  if not known(ARGV[i]) then
    call('HSET', M, ARGV[i], ARGV[i + 1])
    put('t', ARGV[i], ARGV[i + 2])
    put('w', ARGV[i], 1)
  end
end
return 1
