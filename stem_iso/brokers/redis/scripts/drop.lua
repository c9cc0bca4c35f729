-- KEYS[1] a queue · ARGV ids -> outbox entries: those after which others are to be dropped
--
-- Steps that wait are not needed; others are left alone. A tombstone that nobody is shown stays for two minutes.
allow_at_maxmemory()
local tombstone = struct.pack(STATUS, 5, 0, NOW, 0, 0, NONE) .. string.rep(frame(), 8)
for _, id in ipairs(ARGV) do
  if get('w', id) then
    local link = get('t', id)
    if (byte(link or '') or 0) % 4 >= 2 then add_entry('drop', id, link) end
    call('SET', P .. ':s:' .. id, tombstone, 'PX', PART * 1000)
    wake_waiters(id)
    ended_ids[#ended_ids + 1] = id
  end
end
flush()
return new_entries()
