-- KEYS[1] a queue · ARGV[1] 1: only say what would be done · [2] nonce of this replay, then for each letter: id, the letter, the record of
-- its next run, unique_for or '' -> for each: 'ok', 'gone' (replayed or purged by another meanwhile), 'active' (a task of this id lives),
-- 'unique'
--
-- Sent again after a lost answer, it finds its nonce beside the task, which is 'ok' too.
local said, woken = {}, false

local function revive(id, r, record, life)
  local lock = r.lock and P .. ':u:' .. r.lock
  if lock then vacate(r.lock, id) end
  if lock and life then
    call('SET', lock, id, 'PX', math.max(1, math.ceil(life * 1000)))
  elseif lock then
    call('SET', lock, id)
  end
  call('DEL', P .. ':s:' .. id)
  call('HSET', M, id, record)
  put('h', id, ARGV[2])
  if r.due and r.due > NOW then call('ZADD', D, number(r.due), id) else ready(id, r.priority) end
  call('HDEL', P .. ':x', id)
  call('ZREM', P .. ':xd', id)
  woken = true
end

local function replay(id, letter, record, life)
  local r = parse(record)
  local held_by, alive = r.lock and holder(r.lock, id), call('HEXISTS', M, id) == 1
  if alive and get('h', id) == ARGV[2] then return 'ok' end
  if call('HGET', P .. ':x', id) ~= letter then return 'gone' end
  if alive then return 'active' end
  if held_by then return 'unique' end
  if ARGV[1] ~= '1' then revive(id, r, record, tonumber(life)) end
  return 'ok'
end

for i = 3, #ARGV, 4 do said[#said + 1] = replay(unpack(ARGV, i, i + 3)) end
if woken then baton() end
flush()
return said
