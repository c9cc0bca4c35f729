-- KEYS[1] a queue · ARGV id, boot, sequence, n, seconds until it looks by itself, latest ('' none, else seconds), reason
-- -> { 'lost' } | { 'revoked' } | { 'waits', seconds }: the lease is over, and it is delayed as it was; at once where it was called meanwhile
allow_at_maxmemory()
local id, token = ARGV[1], ARGV[2] .. ' ' .. ARGV[3]
local held, called, bucket = get('b', id), '-', nil
if held then
  local n, asker
  n, asker, called, bucket = string.match(held, '^(%d+) (%S+ %d+) (%S+) (.*)$')
  held = n == ARGV[4] and asker == token
end
if not holds(call('HGET', L, id), token) then
  if not held then
    return { 'lost' }
  end
  local due = call('ZSCORE', D, id) -- asked again: it was done
  return { 'waits', number(math.max(0, due and tonumber(due) - NOW or 0)) }
end
if not held then
  return { 'lost' }
end
if get('v', id) then
  return { 'revoked' }
end
local at = NOW + tonumber(ARGV[5])
if ARGV[6] ~= '' then
  at = math.min(at, tonumber(ARGV[6]))
end
if called ~= '-' then
  at = math.min(at, int(called, at))
end
put('b', id, ARGV[4] .. ' ' .. token .. ' - ' .. bucket)
local sound, why = pcall(unframe, get('y', id) or '', 2)
put('y', id, frame(ARGV[7]) .. frame(sound and why[2]))
again(id, call('HGET', M, id), { due = at, keep = true, head = true })
flush()
return { 'waits', number(math.max(0, at - NOW)) }
