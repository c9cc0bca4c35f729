-- KEYS[1] a queue, or a group's own slot · ARGV[1] id, ARGV[2] token of the waiter -> 1 registered, 0 there is nothing to wait for
--
-- The list <P>:e:<token> gets an entry when the task ends (a group: when a member has), and the registration goes with it. At most 64
-- tokens are kept for an id: waiters that died leave theirs until then; one that is pushed out polls by itself, and registers again.
allow_at_maxmemory()
local id, token = ARGV[1], ARGV[2]
local group = call('EXISTS', P .. ':j') == 1
if not group and call('HEXISTS', P .. ':m', id) == 0 then
  return 0
end
local tokens, kept = {}, {}
for each in string.gmatch(call('HGET', P .. ':e', id) or '', '%S+') do
  if each ~= token then
    tokens[#tokens + 1] = each
  end
end
for i = math.max(1, #tokens - 62), #tokens do
  kept[#kept + 1] = tokens[i]
end
kept[#kept + 1] = token
call('HSET', P .. ':e', id, table.concat(kept, ' '))
if group then
  call('PEXPIRE', P .. ':e', 120000) -- a slot of its own: who still waits registers every few seconds
end
return 1
