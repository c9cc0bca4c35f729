-- KEYS[1] a queue · ARGV[1] the channel, [2] how many at most -> how many were ended, 1 where there may be more, outbox entries
local left, ended_here, met = tonumber(ARGV[2]), 0, {}
local function purge(id)
  local record = not met[id] and call('HGET', M, id)
  met[id] = true
  if record and call('HEXISTS', L, id) == 0 then
    add_end_notice(id, record, 5, 'purged')
    finish(id, record, { state = 5, reason = 'purged' })
    ended_here = ended_here + 1
  end
  left = left - 1
end
for priority = 9, 0, -1 do
  while left > 0 do
    local id = call('LPOP', P .. ':r' .. priority)
    if not id then break end
    purge(id)
  end
end
if left > 0 then
  for _, id in ipairs(call('ZRANGE', D, 0, left - 1)) do
    purge(id)
    call('ZREM', D, id)
  end
end
flush()
if ended_here > 0 then notify(ARGV[1]) end
return { ended_here, left > 0 and 0 or 1, new_entries() }
