-- KEYS[1] a queue · ARGV[1] cause, encoded, [2] error, encoded, then ids -> outbox entries
--
-- Steps that wait will never begin; others are left alone. Their end goes on under the cause with which it began. A canvas whose outcome
-- is among them leaves an end notice.
allow_at_maxmemory()
for i = 3, #ARGV do
  local id = ARGV[i]
  if get('w', id) then
    local record = call('HGET', M, id)
    if (byte(get('t', id) or '') or 0) % 2 == 1 then add_end_notice(id, record, 4, 'link-failed', ARGV[2]) end
    finish(id, record, { state = 4, reason = 'link-failed', error = ARGV[2], cause = ARGV[1] })
  end
end
flush()
return new_entries()
