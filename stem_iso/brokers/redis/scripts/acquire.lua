-- KEYS[1] a queue · ARGV id, boot, sequence, bucket -> { 'lost' } | { 'revoked' } | { 'asked', n, seconds left of the lease, priority, outbox entries }
--
-- P:b id -> "n boot sequence due bucket": what this delivery asks for, so that every end of it, from here on, leaves "free" in the outbox.
-- `n` grows with every delivery that asks; `due` is what a promotion has written meanwhile: '-' nothing, 0 come at once, else when (seconds).
allow_at_maxmemory()
local id, token, bucket = ARGV[1], ARGV[2] .. ' ' .. ARGV[3], ARGV[4]
local lease = call('HGET', L, id)
if not holds(lease, token) then
  return { 'lost' }
end
if get('v', id) then
  return { 'revoked' }
end
local n = string.format('%.0f', NOW * 1e6)
local held = get('b', id)
if held then
  local former, asker, _, where = string.match(held, '^(%d+) (%S+ %d+) (%S+) (.*)$')
  if asker == token and where == bucket then
    n = former
  else
    n = string.format('%.0f', math.max(NOW * 1e6, int(former) + 1))
    if where ~= bucket then
      add_entry('free', id, held) -- another deploy counts it elsewhere, or it was edited, or held while it was paused
    end
  end
end
put('b', id, n .. ' ' .. token .. ' - ' .. bucket)
-- It begins here, and not when it was leased. What else the lease says stays.
local visibility = string.match(lease, '^%S+ %S+ %S+(.*)$') or ''
call('HSET', L, id, token .. ' ' .. number(NOW) .. visibility)
return { 'asked', n, number(int(call('ZSCORE', Z, id), NOW) - NOW), rank(call('HGET', M, id)), new_entries() }
