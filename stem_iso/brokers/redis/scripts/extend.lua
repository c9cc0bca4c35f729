-- KEYS[1] a queue · ARGV[1] id · [2] token · [3] seconds: the lease ends no sooner than in so many -> 1, or 0 where it is lost
allow_at_maxmemory()
if not tonumber(ARGV[3]) or not holds(call('HGET', L, ARGV[1]), ARGV[2]) then return 0 end
call('ZADD', Z, 'GT', number(NOW + tonumber(ARGV[3])), ARGV[1])
return 1
