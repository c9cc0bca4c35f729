-- KEYS[1] a queue · ARGV[1] the life of a dead letter, seconds -> how many were dropped: dead letters, 1000 at most, and of the lists what
-- stood there for nothing, where it was so much that there is more
--
-- All else that expires, the server drops by itself: statuses, locks, lists rung for waiters that died, counts. Of the lists of tasks (qa, qr,
-- q3, q4, q5) two stretches are compared with what is there: the oldest, where statuses expire first, and one that moves on with each sweep,
-- from rank P:qp, so that in time all are. What older workers have ended is found in qa, and goes where it belongs.
allow_at_maxmemory()
local STRETCH = 100

local function there(list, id)
  if list == 'qa' or list == 'qr' then return call('HEXISTS', M, id) == 1 end
  return call('EXISTS', P .. ':s:' .. id) == 1
end

local function relist(id, place)
  local state = byte(call('GETRANGE', P .. ':s:' .. id, 0, 0)) or 0
  if state >= 3 and state <= 5 then call('ZADD', P .. ':q' .. state, place, id) end
end

-- How many were looked at, and how many of them dropped.
local function compare(list, from)
  local key, gone = P .. ':' .. list, {}
  local stretch = call('ZRANGE', key, from, from + STRETCH - 1, 'WITHSCORES')
  for i = 1, #stretch, 2 do
    if not there(list, stretch[i]) then
      gone[#gone + 1] = stretch[i]
      if list == 'qa' then relist(stretch[i], stretch[i + 1]) end
    end
  end
  if #gone > 0 then call('ZREM', key, unpack(gone)) end
  return #stretch / 2, #gone
end

-- How many were dropped, where it is worth coming again at once: a quarter of what was looked at.
local function tidy(list)
  if call('EXISTS', P .. ':' .. list) == 0 then return 0 end
  local looked, gone = compare(list, 0)
  local dense = gone * 4 >= looked and gone or 0
  if looked < STRETCH then return 0 end
  local from = math.max(STRETCH - gone, int(call('HGET', P .. ':qp', list)) - gone)
  looked, gone = compare(list, from)
  call('HSET', P .. ':qp', list, looked < STRETCH and 0 or from + looked - gone)
  call('EXPIRE', P .. ':qp', DAY)
  return dense + (gone * 4 >= looked and gone or 0)
end

if call('EXISTS', M) == 0 then call('DEL', unpack(lists())) end -- ids of what was revoked while nobody leased
local old = call('ZRANGEBYSCORE', P .. ':xd', '-inf', number(NOW - tonumber(ARGV[1])), 'LIMIT', 0, 1000)
if #old > 0 then
  call('HDEL', P .. ':x', unpack(old))
  call('ZREM', P .. ':xd', unpack(old))
end
local dropped = #old
for _, list in ipairs({ 'qa', 'qr', 'q3', 'q4', 'q5' }) do dropped = dropped + tidy(list) end
return dropped
