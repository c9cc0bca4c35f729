-- KEYS[1] a queue · ARGV[1] the channel, [2] 1 | 2 (terminate), [3] the id that was asked for, then ids of parts of it, or itself
-- -> { for each: 1 it was to be revoked, 0 it is not known or has ended }, outbox entries
--
-- What runs is flagged, and its end is `cancelled` whatever becomes of it but a success. An end notice is written of what stood in
-- the queue, and of what was asked for itself; not of each part that was still far from its turn.
allow_at_maxmemory()
local mode, wakes, verdicts = tonumber(ARGV[2]), false, {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local record = call('HGET', M, id)
  if id ~= ARGV[3] and not get('t', id) then record = false end -- replayed: a part of nothing any more
  verdicts[#verdicts + 1] = record and 1 or 0
  if record and call('HEXISTS', L, id) == 1 then
    put('v', id, math.max(int(get('v', id)), mode))
    wakes = true
  elseif record then
    if id == ARGV[3] or not get('w', id) then
      add_end_notice(id, record, 5, 'revoked')
      wakes = true
    end
    finish(id, record, { state = 5, reason = 'revoked' })
  end
end
flush()
if wakes then notify(ARGV[1]) end
return { verdicts, new_entries() }
