-- KEYS[1] a queue · ARGV[1] nonce of this call, then minute, field, how many, ... -> 1, 0 where this call was carried out before
--
-- P:qc:<minute> HASH "enqueued name", "succeeded name", ... -> how often · "w<bin> name", "r<bin> name" -> of waits and runs, how many.
allow_at_maxmemory()
if not call('SET', P .. ':qn:' .. ARGV[1], 1, 'NX', 'EX', 60) then return 0 end
local minutes = {}
for i = 2, #ARGV, 3 do
  local key = P .. ':qc:' .. ARGV[i]
  if redis.pcall('HINCRBY', key, ARGV[i + 1], ARGV[i + 2]) == tonumber(ARGV[i + 2]) then minutes[key] = true end
end
for key in pairs(minutes) do call('EXPIRE', key, COUNTS_LIFE) end
return 1
