-- KEYS[1] a bucket · ARGV[1] what is to be done:
--   take, member, n, left, rank, count, period, most   -> 1, calls             it holds the bucket for `left` seconds and GRACE
--                                                      -> 0, why, look, calls  'rate' | 'concurrency'; it stands in line, and looks in `look`
--   free, k, k x (member, n), (member, n, due) ...     -> calls    these have ended, or left their line; those calls were delivered
--   hold, (member, n, left) ...                        -> 0        holders that live on
--   park, member, n, rank, number                      -> 1, {}, 0 it is not paused any more; 0, calls, look: it stands in line
--   open, number                                       -> calls    a paused task is resumed: its line goes
--   read                                               -> {count, period, most, how many hold it, how many wait}; {} not in use
-- calls = { member, n, due, in, ... }: told to come now (due '', in '0'), or in so many seconds (due names the instant); told again until
-- they were delivered
--
-- P:i HASH  count, period, most (0: no such limit), number (of the last place), parked (when the last of the line looks by itself),
--           told (to whom it was said when it may begin)
-- P:h ZSET  "member n" by the end of its lease · P:st LIST times of starts, the newest first, `count` of them at most
-- P:q ZSET  the line: member by place = rank * 2^40 + number · P:c ZSET called, by when · P:u SET called, and not yet delivered
-- A paused task has a bucket with room for one (PAUSE), who holds it until it is opened: so its line is served by the same rules, also by
-- those who know nothing of pauses. `gate` in P:i is the highest number of a pause or an opening that it has met.
-- P:k HASH  member -> "n place" of all in P:q and P:c. `n` counts what a task asked: an end of an older asking leaves a newer one alone.
local GRACE, FALLBACK, SPACING, GRAIN, PULL, KEPT = 30, 60, 0.25, 0.001, 16, 600
local PAUSE, OPENED, PARKED = 'pause 0', 500, 600 -- who holds it; how many go at once; seconds until one looks by itself
local I, H, ST, Q, C, U, K = P .. ':i', P .. ':h', P .. ':st', P .. ':q', P .. ':c', P .. ':u', P .. ':k'
local verb = ARGV[1]

call('ZREMRANGEBYSCORE', H, '-inf', number(NOW))

if verb == 'take' then
  call('HSET', I, 'count', ARGV[6], 'period', ARGV[7], 'most', ARGV[8])
end
if verb == 'read' then
  if call('EXISTS', H, Q, C, ST) == 0 then return {} end
  local set = call('HMGET', I, 'count', 'period', 'most')
  return { set[1] or '0', set[2] or '0', set[3] or '0', call('ZCARD', H), call('ZCARD', Q) + call('ZCARD', C) }
end

if verb == 'park' or verb == 'open' then
  local met, said = int(call('HGET', I, 'gate')), ARGV[verb == 'park' and 5 or 2]
  if int(said) < met then
    if verb == 'open' then return {} end
    return { 1, {}, 0 }
  end
  call('HSET', I, 'count', 0, 'period', 0, 'most', verb == 'park' and 1 or 0, 'gate', said)
  if verb == 'park' then
    call('ZADD', H, number(NOW + DAY), PAUSE) -- whoever stands in line looks sooner than that, and so prolongs it
  else
    call('ZREM', H, PAUSE)
  end
end
local set = call('HMGET', I, 'count', 'period', 'most', 'parked', 'told', 'gate')
if set[6] then FALLBACK, PULL = PARKED, OPENED end
local count, period, most = int(set[1]), int(set[2]), int(set[3])
local parked, told = int(set[4]), set[5]

-- Seconds until one more may begin behind `ahead` that were called: 0 now, math.huge when another one has ended. As stem_iso.task.rate_limit.
local function wait(ahead)
  if most > 0 and call('ZCARD', H) + ahead >= most then
    return math.huge
  end
  if count == 0 then
    return 0
  end
  if ahead >= count then
    return math.huge
  end
  local began = call('LINDEX', ST, count - 1 - ahead)
  -- a clock that was set back makes nobody wait for longer than a period
  return began and math.max(0, math.min(int(began, NOW), NOW) + period - NOW) or 0, began
end

local function place_of(member)
  local known = call('HGET', K, member)
  if known then
    local n, place = string.match(known, '^(%d+) (%d+)$')
    if not n then call('HDEL', K, member) end
    return n, tonumber(place)
  end
end

local function leave(member)
  call('ZREM', Q, member)
  call('ZREM', C, member)
  call('SREM', U, member)
  call('HDEL', K, member)
end

local function numbered()
  local n = redis.pcall('HINCRBY', I, 'number', 1)
  if type(n) ~= 'number' then
    n = call('HLEN', K) + 1 -- damaged: behind about as many as stand there
    call('HSET', I, 'number', n)
  end
  return n
end

local function line_up(member, n, rank)
  local _, place = place_of(member)
  if not place then
    place = rank * 2 ^ 40 + numbered()
  end
  call('ZREM', C, member)
  call('SREM', U, member)
  call('HSET', K, member, n .. ' ' .. string.format('%.0f', place))
  call('ZADD', Q, string.format('%.0f', place), member)
end

-- As many of the first as there is room for are called; of whom there is none for yet, the next is told when it may begin. One that was
-- called and has not asked for FALLBACK seconds stands in nobody's way.
local function pull(asking)
  local ahead = call('ZCOUNT', C, number(NOW - FALLBACK), '+inf')
  local left, first, began = 0, nil, nil
  for pulled = 0, PULL do
    first = call('ZRANGE', Q, 0, 0)[1]
    if first then
      left, began = wait(ahead)
    end
    if not first or left > 0 or pulled == PULL then
      break
    end
    call('ZREM', Q, first)
    call('ZADD', C, number(NOW), first)
    call('SADD', U, first)
    ahead = ahead + 1
  end
  local called, calls = {}, {}
  for _, member in ipairs(call('SMEMBERS', U)) do
    local n, place = place_of(member)
    if n then called[#called + 1] = { member, n, place } else leave(member) end
  end
  table.sort(called, function(one, other) return one[3] < other[3] end)
  for _, each in ipairs(called) do
    for _, word in ipairs({ each[1], each[2], '', '0' }) do
      calls[#calls + 1] = word
    end
  end
  local look
  if left > 0 and left < math.huge then
    local due = tostring(began) .. '+' .. period -- the same as long as it may begin at the same instant
    if first == asking then
      look = left + GRAIN
      call('HSET', I, 'told', due .. ' ' .. first)
    elseif told ~= due .. ' ' .. first then
      for _, word in ipairs({ first, place_of(first) or '0', due, number(left + GRAIN) }) do
        calls[#calls + 1] = word
      end
    end
  end
  return calls, look
end

-- What nobody holds and nobody waits at says nothing once its last start is a period old.
local function tidy()
  if call('EXISTS', H, Q, C) == 0 then
    call('DEL', U, K)
    if set[6] then call('PEXPIRE', I, KEPT * 1000) else call('DEL', I) end -- one who is late must find that it was opened
    return
  end
  local newest = call('ZRANGE', H, -1, -1, 'WITHSCORES')[2]
  local life = math.max(KEPT, period, parked - NOW + KEPT, newest and tonumber(newest) - NOW or 0)
  for _, key in ipairs({ I, H, Q, C, U, K }) do
    call('PEXPIRE', key, string.format('%.0f', life * 1000))
  end
end

if verb == 'take' then
  local member, n, left, rank = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
  local holder = member .. ' ' .. n
  local held = call('ZSCORE', H, holder)
  if held or wait(0) == 0 then
    call('ZADD', H, 'GT', number(NOW + math.max(0, left) + GRACE), holder)
    if count > 0 and not held then
      call('LPUSH', ST, number(NOW))
      call('LTRIM', ST, 0, count - 1)
      call('PEXPIRE', ST, string.format('%.0f', math.ceil(period * 1000)))
    end
    leave(member)
    local calls = pull()
    tidy()
    return { 1, calls }
  end
  local why = wait(0) == math.huge and 'concurrency' or 'rate'
  local alone = call('EXISTS', Q) == 0
  parked = alone and NOW + FALLBACK or math.max(NOW + FALLBACK, parked + SPACING)
  call('HSET', I, 'parked', number(parked))
  line_up(member, n, rank)
  local calls, look = pull(member)
  tidy()
  return { 0, why, number(look or parked - NOW), calls }
end

if verb == 'open' then
  local calls = pull()
  tidy()
  return calls
end

if verb == 'park' then
  local alone = call('EXISTS', Q) == 0
  parked = alone and NOW + PARKED or math.max(NOW + PARKED, parked + SPACING)
  call('HSET', I, 'parked', number(parked))
  line_up(ARGV[2], ARGV[3], tonumber(ARGV[4]))
  local calls = pull(ARGV[2])
  tidy()
  return { 0, calls, number(parked - NOW) }
end

if verb == 'hold' then
  for i = 2, #ARGV, 3 do
    call('ZADD', H, 'XX', 'GT', number(NOW + tonumber(ARGV[i + 2]) + GRACE), ARGV[i] .. ' ' .. ARGV[i + 1])
  end
  tidy()
  return 0
end

local freed = tonumber(ARGV[2])
for i = 3, 2 + 2 * freed, 2 do
  call('ZREM', H, ARGV[i] .. ' ' .. ARGV[i + 1])
  local n = place_of(ARGV[i])
  if n and tonumber(n) <= tonumber(ARGV[i + 1]) then
    leave(ARGV[i])
  end
end
for i = 3 + 2 * freed, #ARGV, 3 do
  if ARGV[i + 2] == '' then
    if place_of(ARGV[i]) == ARGV[i + 1] then
      call('SREM', U, ARGV[i])
    end
  elseif call('ZSCORE', Q, ARGV[i]) then
    told = ARGV[i + 2] .. ' ' .. ARGV[i]
    call('HSET', I, 'told', told)
  end
end
local calls = set[6] and #ARGV > 2 + 2 * freed and {} or pull() -- of a line that was opened, the next go with the next call
tidy()
return calls
