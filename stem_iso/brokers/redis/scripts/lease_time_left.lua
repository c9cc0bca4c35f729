-- KEYS[1] a queue · ARGV id, boot, sequence, ... -> { seconds left of its lease | nil: it is lost, ... }
local left = {}
for i = 1, #ARGV, 3 do
  local ends = holds(call('HGET', L, ARGV[i]), ARGV[i + 1] .. ' ' .. ARGV[i + 2]) and call('ZSCORE', Z, ARGV[i])
  left[#left + 1] = ends and number(tonumber(ends) - NOW) or false
end
return left
