-- KEYS[1] a queue · ARGV[1] when the relay began (seconds, by a server), then id, record, link of each part -> 1, or -1: that is long ago
--
-- They wait for what stands before them, and are in no list. What is here, or was, is left alone: its tombstone outlives any relay.
allow_at_maxmemory()
if NOW > tonumber(ARGV[1]) + 60 then return -1 end
local places, names = {}, {}
for i = 2, #ARGV, 3 do
  if not known(ARGV[i]) then
    local name = name_in(parse(ARGV[i + 1]).head, 0) or ''
    names[name] = (names[name] or 0) + 1
    places[#places + 1] = new_place()
    places[#places + 1] = ARGV[i]
    call('HSET', M, ARGV[i], ARGV[i + 1])
    put('t', ARGV[i], ARGV[i + 2])
    put('w', ARGV[i], 1)
  end
end
list_new(places)
count_enqueued(names)
return 1
