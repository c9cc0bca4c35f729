-- KEYS[1] a queue · ARGV ids -> for each 1 if it is leased here, else 0
local found = {}
for i, id in ipairs(ARGV) do found[i] = call('HEXISTS', L, id) end
return found
