-- KEYS[1] a queue · ARGV[1] 1: only say what would be done, then for each letter: id, the letter, the record of its next run, unique_for
-- or '' -> for each: 'ok', 'gone' (replayed or purged by another meanwhile), 'active' (a task of this id lives), 'unique'
--
-- Sent again after a lost answer: the very record is there, which is 'ok' too.
local said, woken = {}, false
for i = 2, #ARGV, 4 do
  local id, letter, record, life = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local r = parse(record)
  local lock = r.lock and P .. ':u:' .. r.lock
  local holder = lock and call('GET', lock)
  local alive, answer = call('HGET', M, id), 'ok'
  if alive == record then
    woken = woken -- it was replayed by this call already
  elseif call('HGET', P .. ':x', id) ~= letter then
    answer = 'gone'
  elseif alive then
    answer = 'active'
  elseif holder and holder ~= id then
    answer = 'unique'
  elseif ARGV[1] ~= '1' then
    if lock then
      if life then call('SET', lock, id, 'PX', math.max(1, math.ceil(life * 1000))) else call('SET', lock, id) end
    end
    call('DEL', P .. ':s:' .. id)
    call('HSET', M, id, record)
    if r.due and r.due > NOW then call('ZADD', D, number(r.due), id) else ready(id, r.priority) end
    call('HDEL', P .. ':x', id)
    call('ZREM', P .. ':xd', id)
    woken = true
  end
  said[#said + 1] = answer
end
if woken then baton() end
return said
