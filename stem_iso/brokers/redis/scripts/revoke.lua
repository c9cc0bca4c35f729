-- KEYS[1] a queue · ARGV[1] the bell, [2] 1 | 2 (terminate), [3] the id that was asked for, then ids of parts of it, or itself
-- -> { for each: 1 it was to be revoked, 0 it is not known or has ended }, outbox entries
--
-- What runs is flagged, and its end is `cancelled` whatever becomes of it but a success. Told apart is what stood in the queue, and what was
-- asked for itself; not each part that was still far from its turn.
drain()
local mode, rings, verdicts = tonumber(ARGV[2]), false, {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local record = call('HGET', M, id)
  if id ~= ARGV[3] and not get('t', id) then record = false end -- replayed: a part of nothing any more
  verdicts[#verdicts + 1] = record and 1 or 0
  if record and call('HEXISTS', L, id) == 1 then
    put('v', id, math.max(int(get('v', id)), mode))
    rings = true
  elseif record then
    if id == ARGV[3] or not get('w', id) then
      tell(id, record, 5, 'revoked')
      rings = true
    end
    finish(id, record, { state = 5, reason = 'revoked' })
  end
end
flush()
if rings then bell(ARGV[1]) end
return { verdicts, fresh() }
