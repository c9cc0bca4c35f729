-- KEYS[1] a queue · ARGV[1] seconds, [2] how many -> outbox entries that were here at the last look, if that is so long ago
--
-- P:ol the number that was the newest at a look, and when that was: an entry up to it is older than the look, and its asker has died, or is
-- slow. Looking more often than that finds nothing, so two workers do not take the same.
local out = P .. ':out'
local many = call('HLEN', out)
if many == 0 then
  call('DEL', P .. ':ol')
  return {}
end
local last = call('HMGET', P .. ':ol', 'number', 'at')
if last[2] and NOW < math.min(int(last[2]), NOW) + tonumber(ARGV[1]) then return {} end
call('HSET', P .. ':ol', 'number', string.format('%.0f', int(call('GET', P .. ':on'), NOW * 1e6)), 'at', number(NOW))
call('EXPIRE', P .. ':ol', DAY)
if not last[1] then return {} end
local old = {}
for _, n in ipairs(many > 1000 and call('HRANDFIELD', out, 1000) or call('HKEYS', out)) do
  if int(n) <= int(last[1]) then old[#old + 1] = tonumber(n) end
end
table.sort(old)
local found = {}
for i = 1, math.min(#old, tonumber(ARGV[2])) do
  local n = string.format('%.0f', old[i])
  found[2 * i - 1] = n
  found[2 * i] = call('HGET', out, n)
end
return found
