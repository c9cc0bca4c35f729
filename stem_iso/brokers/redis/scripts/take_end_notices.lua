-- KEYS[1] a queue · ARGV[1] how many -> the oldest entries, taken: without their times. What is older than a minute is dropped.
--
-- An entry is its time ('<d'), then 'S' and frames of what a script knew (id, state, reason, error, head: `add_end_notice`), or 'M' and
-- msgpack [id, name, queue, run, attempt, state, reason, error].
local found = {}
while #found < tonumber(ARGV[1]) do
  local entry = call('LPOP', P .. ':a')
  if not entry then break end
  if #entry > 8 and struct.unpack('<d', entry) > NOW - 60 then found[#found + 1] = sub(entry, 9) end
end
return found
