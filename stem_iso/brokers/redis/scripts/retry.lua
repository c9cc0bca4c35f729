-- KEYS[1] a queue · ARGV[1] id, [2] its status as it was read, [3] the record of its next run, [4] unique_for or '', [5] nonce of this retry
-- -> 'ok', 'changed' (its status is another, or has gone), 'active' (a task of this id lives), 'unique'
--
-- Sent again after a lost answer, it finds its nonce beside the task, which is 'ok' too.
local id, status, record, life, nonce = unpack(ARGV)

local function retry()
  local r = parse(record)
  if call('HEXISTS', M, id) == 1 then return get('h', id) == nonce and 'ok' or 'active' end
  if call('GET', P .. ':s:' .. id) ~= status then return 'changed' end
  if r.lock and holder(r.lock, id) then return 'unique' end
  revive(id, r, record, tonumber(life), nonce)
  leave_token()
  return 'ok'
end

local answer = retry()
flush()
return answer
