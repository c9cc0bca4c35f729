-- KEYS[1] a queue · ARGV[1] boot -> { id, sequence, 1|2 (terminate), ... } of what this boot holds and somebody has revoked
local found = {}
local revoked = call('HGETALL', P .. ':v')
for i = 1, #revoked, 2 do
  local boot, sequence = string.match(call('HGET', L, revoked[i]) or '', '^(%S+) (%d+)')
  if boot == ARGV[1] then
    found[#found + 1] = revoked[i]
    found[#found + 1] = sequence
    found[#found + 1] = revoked[i + 1]
  end
end
return found
