-- KEYS[1] a queue · ARGV[1] boot · [2] sequence · [3] how many deliveries · [4] default visibility · [5] lost sequences, by spaces
-- ARGV[6..] plans of seven: kind, id, token, nonce (8 bytes), a, b, tail (frames reason, error, result, meta, progress)
--   F finish      a state 3|4|5    b ttl              R retry   a record   b due | ''
--   G give back   a record | ''    b delay            of R, and of G with a record, tail's meta only says ('-') that what was noted is void
-- -> { verdicts as digits (0 lost, 1 done, 2 cancelled),
--      entries of the outbox {number, entry, ...},
--      deliveries of six {id, record, redeliveries, note, begun, revoked},
--      seconds to the first that is due | '', 1 if more is ready,
--      how many are ready by priority 0..9, of a look that wants nothing }
--
-- Asked twice, it answers as it did. A settlement is known by its nonce, in the status or in P:h. Leases are known by their sequence: it
-- lies in P:i:<boot> for a minute, and who comes with an older one gets nothing any more, so that no delivery is left with nobody. What
-- lost turns have leased is taken over under the new one, as far as it wants.
allow_at_maxmemory()
local PROMOTE, WIDTH = 200, 7
local boot, sequence, want, visibility = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

if not want or not visibility or (#ARGV - 5) % WIDTH ~= 0 then return redis.error_reply('ERR exchange: bad arguments') end
for i = 6, #ARGV, WIDTH do
  local kind, a, b = ARGV[i], ARGV[i + 4], ARGV[i + 5]
  local sound = #ARGV[i + 3] == 8 and #ARGV[i + 6] >= 20
  if kind == 'F' then
    sound = sound and (a == '3' or a == '4' or a == '5') and tonumber(b)
  elseif kind == 'R' then
    sound = sound and #a >= 8 and (b == '' or tonumber(b))
  else
    sound = sound and kind == 'G' and (a == '' or #a >= 8) and tonumber(b)
  end
  if not sound then return redis.error_reply('ERR exchange: the plan of ' .. ARGV[i + 1] .. ' is not sound') end
end

-- -- plans ------------------------------------------------------------------------------------------------------------------------------------

local settled = {}
local returned = {} -- given back without a delay

-- What this very settlement was answered, where it came before.
local function before(i)
  local kind, id, token, nonce, a = unpack(ARGV, i, i + 4)
  local s = ended(id)
  if s then
    if s.token ~= token or s.nonce ~= nonce then return '0' end
    if kind == 'F' and tonumber(a) == s.state then return '1' end
    return s.state == 5 and '2' or '1'
  end
  return get('h', id) == nonce and '1' or '0'
end

local function settle(i, lease, record)
  local kind, id, token, nonce, a, b, tail = unpack(ARGV, i, i + WIDTH - 1)
  if not record or not holds(lease, token) or settled[id] then return before(i) end
  settled[id] = true
  if (kind ~= 'F' or a == '4') and get('v', id) then
    local t = unframe(tail, 5)
    finish(id, record, { state = 5, reason = 'revoked', error = t[2], meta = kind == 'F' and t[4] or '', progress = t[5], lease = lease,
      token = token, nonce = nonce })
    return '2'
  end
  if kind == 'F' then
    finish(id, record, { state = tonumber(a), ttl = tonumber(b), tail = tail, lease = lease, token = token, nonce = nonce })
    return '1'
  end
  local t = unframe(tail, 5)
  if t[5] ~= '' then put('p', id, t[5]) end
  put('h', id, nonce)
  if kind == 'R' then
    call('ZADD', QR, call('ZSCORE', QA, id) or new_place(), id)
    seen.qr = true
    replace(id, a, { due = tonumber(b), reason = t[1], error = t[2], note = t[4] == '' })
  else
    local due = tonumber(b) > 0 and NOW + tonumber(b) or nil
    if a ~= '' then
      replace(id, a, { due = due, note = t[4] == '' })
    else
      if t[4] ~= '' then put('n', id, t[4]) end
      if due then again(id, record, { due = due }) else returned[#returned + 1] = { id, record } end
    end
  end
  return '1'
end

local verdicts = {}
for first = 6, #ARGV, WIDTH * 500 do
  local ids, last = {}, math.min(first + WIDTH * 500 - 1, #ARGV)
  for i = first, last, WIDTH do ids[#ids + 1] = ARGV[i + 1] end
  local leases, records = call('HMGET', L, unpack(ids)), call('HMGET', M, unpack(ids))
  for k = 1, #ids do verdicts[#verdicts + 1] = settle(first + WIDTH * (k - 1), leases[k], records[k]) end
end
for k = #returned, 1, -1 do again(returned[k][1], returned[k][2], { head = true }) end -- as they stood: it was their turn
flush()

-- -- what has come due ------------------------------------------------------------------------------------------------------------------------

local function first_due() return tonumber(call('ZRANGE', D, 0, 0, 'WITHSCORES')[2]) end

local due = first_due()
if due and due <= NOW then
  local ids = call('ZRANGEBYSCORE', D, '-inf', number(NOW), 'LIMIT', 0, PROMOTE)
  local records = call('HMGET', M, unpack(ids))
  for k, id in ipairs(ids) do
    if records[k] and not get('b', id) then ready(id, rank(records[k])) end
  end
  for k = #ids, 1, -1 do -- from the line of a limit: it has waited its turn
    if records[k] and get('b', ids[k]) then ready(ids[k], rank(records[k]), true) end
  end
  call('ZREM', D, unpack(ids))
  due = first_due()
end

-- -- deliveries -------------------------------------------------------------------------------------------------------------------------------

local deliveries, taken, found = {}, {}, 0

-- Under the token of this turn, from now on.
local function lease(ids, records)
  local held, ends, text, ending = {}, {}, boot .. ' ' .. sequence .. ' ' .. string.format('%.6f', NOW), number(NOW + visibility)
  local rare = has('c') or not seen.none
  for k, id in ipairs(ids) do
    local record, n = records[k], #deliveries
    held[2 * k - 1], held[2 * k] = id, text
    ends[2 * k - 1], ends[2 * k] = ending, id
    local own = (byte(record) or 0) % 2 == 1 and parse(record).visibility
    if own then
      held[2 * k], ends[2 * k - 1] = text .. ' ' .. number(own), number(NOW + own)
    end
    deliveries[n + 1], deliveries[n + 2] = id, record
    deliveries[n + 3], deliveries[n + 4] = rare and get('c', id), rare and get('n', id)
    deliveries[n + 5], deliveries[n + 6] = rare and get('o', id), rare and get('v', id)
  end
  if #held > 0 then
    call('HSET', L, unpack(held))
    call('ZADD', Z, unpack(ends))
  end
  found = found + #ids
end

-- A list may name what was revoked meanwhile, or what has come back under its id since.
local function fetch(ids)
  local records, leases = call('HMGET', M, unpack(ids)), call('HMGET', L, unpack(ids))
  local waits = has('w') and call('HMGET', P .. ':w', unpack(ids)) or {}
  local dues = due and call('ZMSCORE', D, unpack(ids)) or {}
  local mine, theirs = {}, {}
  for k, id in ipairs(ids) do
    if records[k] and not leases[k] and not waits[k] and not dues[k] and not taken[id] then
      taken[id] = true
      mine[#mine + 1] = id
      theirs[#theirs + 1] = records[k]
    end
  end
  lease(mine, theirs)
end

local function take_over(under)
  local leases, token = call('HGETALL', L), boot .. ' ' .. under
  for i = 1, #leases, 2 do
    local record = found < want and holds(leases[i + 1], token) and call('HGET', M, leases[i])
    if record then lease({ leases[i] }, { record }) end
  end
end

if want > 0 then
  local mark, newest = P .. ':i:' .. boot, nil
  newest = string.match(call('GET', mark) or '', '^%d+$')
  for under in string.gmatch(ARGV[5], '%S+') do take_over(under) end
  if newest == sequence then
    take_over(sequence)
  elseif not newest or #newest < #sequence or (#newest == #sequence and newest < sequence) then
    for priority = more(1) and 9 or 0, 0, -1 do -- most tasks have the lowest: one look in place of nine
      while found < want do
        local ids = call('LPOP', P .. ':r' .. priority, math.min(want - found, 1000))
        if not ids then break end
        fetch(ids)
      end
    end
  end
  if newest ~= sequence and (found > 0 or ARGV[5] ~= '') then call('SET', mark, sequence, 'PX', 60000) end
end

local rest = more()
if rest and found > 0 then leave_token() end
local counts = {}
if want == 0 and rest then
  for priority = 0, 9 do counts[priority + 1] = call('LLEN', P .. ':r' .. priority) end
end
return { table.concat(verdicts), new_entries(), deliveries, due and number(math.min(due - NOW, 1e9)) or '', rest and 1 or 0, counts }
