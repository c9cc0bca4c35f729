-- KEYS[1] a queue · ARGV ids -> for each: how many bytes there are to read of its record or its status; 0: it is not here
local found = {}
for i, id in ipairs(ARGV) do
  local bytes = call('HSTRLEN', M, id)
  found[i] = bytes > 0 and bytes or call('STRLEN', P .. ':s:' .. id)
end
return found
