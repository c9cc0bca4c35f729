-- KEYS[1] a queue · ARGV[1] previous, encoded, [2] id of the part before them, then ids -> outbox entries, none
--
-- Steps that wait begin; others are left alone. The record stays as it is: `previous`, parent and time lie over it. '' for previous: they
-- are the first of their canvas, and begin as they were composed.
allow_at_maxmemory()
local first = ARGV[1] == ''
local over = not first
  and '\147\198' .. struct.pack('>I4', #ARGV[1]) .. ARGV[1] .. cmsgpack.pack(ARGV[2]) .. '\203' .. struct.pack('>d', NOW)
for i = 3, #ARGV do
  local id = ARGV[i]
  if get('w', id) then
    local r = parse(call('HGET', M, id))
    local due = r.due
    if over then
      put('o', id, over)
      if r.starts_in then due = NOW + r.starts_in end
    end
    drop('w', id)
    wait(id, r.priority, { due = due })
  end
end
flush()
return new_entries()
