-- KEYS[1] a queue · ARGV ids -> for each: nil, not known here
--   { record, lease, redeliveries, note, progress, why, waits 0|1, due, begun }, nil where there is nothing      it has not ended
--   the value of P:s:<id>                                                                                        it has
local found = {}
local records = call('HMGET', M, unpack(ARGV))
for i, id in ipairs(ARGV) do
  found[i] = false
  if records[i] then
    local waits = get('w', id) and 1 or 0
    found[i] = {
      records[i], call('HGET', L, id), get('c', id), get('n', id), get('p', id), get('y', id), waits, call('ZSCORE', D, id), get('o', id)
    }
  else
    local status = call('GET', P .. ':s:' .. id)
    if status then
      local ends = #status >= 9 and select(2, struct.unpack('<Bd', status)) or math.huge -- damaged, which is to be said
      if not (ends <= NOW) then found[i] = status end
    end
  end
end
return found
