-- KEYS[1] a queue · ARGV[1] boot of the claimant · [2] its predecessor | '' · [3] the most redeliveries · [4] error of one that runs at
-- most once · [5] error of one that was delivered too often · [6] seconds between two reclaims · [7] 1: name the claimant's own that ran
-- out · [8] for how long the server has been up, where the claimant reclaims for the first time | '' · then id, token, ... of the
-- claimant's own that it does not hold
-- -> { entries of the outbox }, { id, state (0: waits again), reason, record, boot, ... }, { id, token, ... of its own that ran out }
--
-- Leases that ran out, but of the claimant's own only those that it names, and all of the predecessor's. What is delivered again stands before
-- all others. Work that is ready, or has come due, while no wake-up token lies there was forgotten by one who died or has no seat any more:
-- a token is left again.
--
-- Where nobody has reclaimed for longer than a round takes, the server was away, and leases ran out without their holders' fault: these have
-- GRACE, more than a worker's longest pause between two tries, to renew before anybody claims. A server that goes away again meanwhile
-- begins another, for ROW seconds in all: reclaims that are merely slow must not put it off for ever. P:seen is "last reclaim, end of the grace,
-- since when they stand in a row". A claimant that has only just come knows better where the server has been up since that reclaim: it was the
-- workers that were away. (Where a network had cut off all of them, it may come before a holder does; the fence then stops that holder.)
allow_at_maxmemory()
local READ, TAKE, GRACE, ROW = 2000, 500, 6, 60 -- TAKE: as BATCH of stem_iso.brokers.redis.lease
local lost, leases, reclaimed, own = {}, {}, {}, {}
local up_since = ARGV[8] ~= '' and NOW - tonumber(ARGV[8])

local function consider(id, lease)
  if #lost < TAKE and lease and not leases[id] then
    leases[id] = lease
    lost[#lost + 1] = id
  end
end

local last, till, since = string.match(call('GET', P .. ':seen') or '', '^(%S+) (%S+) ?(%S*)$')
-- A clock that was set back lengthens no grace.
last, till, since = tonumber(last), math.min(tonumber(till) or 0, NOW + GRACE), math.min(tonumber(since or '') or NOW, NOW)

local function looked(before)
  if NOW - before > tonumber(ARGV[6]) + 1 then
    if NOW - since < ROW and not (up_since and up_since <= before) then till = NOW + GRACE end
  elseif NOW >= till then
    since = NOW
  end
  last = NOW
end

local function away(lease)
  if not last then looked(int(string.match(lease, '^%S+ %S+ (%S+)'), NOW)) end -- nobody has looked since it was leased
  return NOW < till
end

if last then looked(last) end
for _, id in ipairs(call('ZRANGEBYSCORE', Z, '-inf', number(NOW), 'LIMIT', 0, READ)) do
  local lease = call('HGET', L, id)
  if not lease then
    call('ZREM', Z, id)
  elseif string.match(lease, '^%S+') == ARGV[1] then
    if ARGV[7] ~= '' and #own < 2 * TAKE then
      own[#own + 1] = id
      own[#own + 1] = string.match(lease, '^%S+ %S+') or lease
    end
  elseif not away(lease) then
    consider(id, lease)
  end
end
for i = 9, #ARGV, 2 do
  local id, ends = ARGV[i], tonumber(call('ZSCORE', Z, ARGV[i]) or NOW + 1)
  local lease = ends <= NOW and call('HGET', L, id)
  if lease and (lease == ARGV[i + 1] or holds(lease, ARGV[i + 1])) then consider(id, lease) end
end
if call('HLEN', L) > call('ZCARD', Z) then -- a lease that never ends: its end is lost
  for _, id in ipairs(call('HKEYS', L)) do call('ZADD', Z, 'NX', number(NOW + 60), id) end
end
if call('EXISTS', Z) == 1 then
  call('SET', P .. ':seen', number(NOW) .. ' ' .. number(till) .. ' ' .. number(since), 'EX', DAY)
else
  call('DEL', P .. ':seen')
end
if ARGV[2] ~= '' and ARGV[2] ~= ARGV[1] then
  local all = call('HGETALL', L)
  for i = 1, #all, 2 do
    if string.match(all[i + 1], '^%S+') == ARGV[2] then consider(all[i], all[i + 1]) end
  end
end

local function report(id, state, reason, record)
  local n = #reclaimed
  reclaimed[n + 1], reclaimed[n + 2], reclaimed[n + 3], reclaimed[n + 4], reclaimed[n + 5] = id, state, reason, record, string.match(leases[id], '^%S+') or ''
end

local function close(id, record, state, reason, error)
  finish(id, record, { state = state, reason = reason, error = error, lease = leases[id] })
  report(id, state, reason, record)
end

for i = #lost, 1, -1 do
  local id = lost[i]
  local record, times = call('HGET', M, id), int(get('c', id))
  if not record then
    call('HDEL', L, id)
    call('ZREM', Z, id)
  elseif get('v', id) then
    close(id, record, 5, 'revoked', '')
  elseif get('k', id) then
    close(id, record, 4, 'worker-lost', ARGV[4])
  elseif times >= tonumber(ARGV[3]) then
    close(id, record, 4, 'redelivery-limit', ARGV[5])
  else
    put('c', id, times + 1)
    again(id, record, { head = true })
    report(id, 0, '', record)
  end
end
flush()
local first = call('ZRANGE', D, 0, 0, 'WITHSCORES')[2]
if more() or (first and tonumber(first) <= NOW) then leave_token() end
return { new_entries(), reclaimed, own }
