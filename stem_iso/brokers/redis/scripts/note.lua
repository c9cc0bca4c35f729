-- KEYS[1] a queue · ARGV[1] id · [2] token · [3] meta · [4] progress ('' each: as it was) -> 1, or 0 where the lease is lost
allow_at_maxmemory()
if not holds(call('HGET', L, ARGV[1]), ARGV[2]) then return 0 end
if ARGV[3] ~= '' then put('n', ARGV[1], ARGV[3]) end
if ARGV[4] ~= '' then put('p', ARGV[1], ARGV[4]) end
return 1
