-- KEYS[1] a queue · ARGV[1] a minute, [2] another one -> those from the one to the other in which something was counted
local found = {}
for minute = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local text = string.format('%.0f', minute)
  if call('EXISTS', P .. ':qc:' .. text) == 1 then found[#found + 1] = text end
end
return found
