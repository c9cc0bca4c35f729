-- KEYS[1] a queue · ARGV[1] id · [2] token: it runs at most once from here on -> 1, or 0 where the lease is lost
allow_at_maxmemory()
if not holds(call('HGET', L, ARGV[1]), ARGV[2]) then return 0 end
put('k', ARGV[1], 1)
return 1
