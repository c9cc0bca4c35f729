-- KEYS[1] a queue · ARGV[1] 1: only answer what would be done · [2] nonce of this replay, then for each letter: id, the letter, the record of
-- its next run, unique_for or '' -> for each: 'ok', 'gone' (replayed or purged by another meanwhile), 'active' (a task of this id lives),
-- 'unique'
--
-- Sent again after a lost answer, it finds its nonce beside the task, which is 'ok' too.
local answers, woken = {}, false

local function replay(id, letter, record, life)
  local r = parse(record)
  local held_by, alive = r.lock and holder(r.lock, id), call('HEXISTS', M, id) == 1
  if alive and get('h', id) == ARGV[2] then return 'ok' end
  if call('HGET', P .. ':x', id) ~= letter then return 'gone' end
  if alive then return 'active' end
  if held_by then return 'unique' end
  if ARGV[1] ~= '1' then
    revive(id, r, record, tonumber(life), ARGV[2])
    woken = true
  end
  return 'ok'
end

for i = 3, #ARGV, 4 do answers[#answers + 1] = replay(unpack(ARGV, i, i + 3)) end
if woken then leave_token() end
flush()
return answers
