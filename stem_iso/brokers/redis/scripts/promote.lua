-- KEYS[1] a queue · ARGV bucket, then id, n, seconds (0: now, -1: now, and behind all others), ... in the order of the line -> { 0 | 1, ... } 1: it waits there no more
--
-- Those that are called stand before all others of their priority, in their order. One that was refused and is still on its way into the
-- line takes the call along. Sent again, or late, it costs a fetch in vain at the most.
allow_at_maxmemory()
local bucket, left, behind = ARGV[1], {}, {}
for i = #ARGV - 2, 2, -3 do
  local id, n, due = ARGV[i], ARGV[i + 1], NOW + tonumber(ARGV[i + 2])
  local held, at = get('b', id), (i + 1) / 3
  left[at] = 1
  local asked, asker, called, where = string.match(held or '', '^(%d+) (%S+ %d+) (%S+) (.*)$')
  if where == bucket then
    left[at] = 0 -- one that asks anew is on its way to the bucket
  end
  if asked == n and where == bucket then
    local delayed = call('ZSCORE', D, id)
    if call('HEXISTS', L, id) == 1 then
      if called == '-' or due < int(called, math.huge) then
        put('b', id, n .. ' ' .. asker .. ' ' .. number(due) .. ' ' .. bucket)
      end
    elseif delayed and due <= NOW then
      call('ZREM', D, id)
      if get('y', id) then -- why it waited
        local sound, why = pcall(unframe, get('y', id), 2)
        put('y', id, frame('') .. frame(sound and why[2]))
      end
      if ARGV[i + 2] == '-1' then behind[#behind + 1] = id else ready(id, rank(call('HGET', M, id)), true) end
      leave_token()
    elseif delayed and due < tonumber(delayed) then
      call('ZADD', D, number(due), id)
      leave_token()
    end
  end
end
for k = #behind, 1, -1 do ready(behind[k], rank(call('HGET', M, behind[k]))) end
return left
