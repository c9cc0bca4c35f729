-- What all scripts share. Their text follows below it in one chunk; a script that ends or gives back tasks calls `flush()` once, as its
-- last write, and reads nothing of what it ended in between.
-- A server makes every function of a chunk anew for each call, so that a call is given only what its script names (`driver/scripts.py`, which
-- has the rules for the text below): constants first, then functions.
--
--   P, NOW                       KEYS[1]; the server's clock, seconds
--   number(x)                    as text that loses nothing
--   frame(s)                     '<I4' length + s; nil is ''
--   unframe(s, n, at)            n frames from `at` (1) on, as a table; .at stands behind them
--   slices(list, f)              f(first, last) over the list in batches of 1000, what `unpack` bears
--   write(command, key, list)    the command with all of the list behind the key, in such batches
--   has(name), put(name, id, v)  whether the rare HASH P:<name> exists; write to it. get(name, id): its field, or false
--   parse(record)                {priority, visibility, ttl, due, starts_in, lock, body} (nil where not said) and .head: it without args. Of
--                                bytes that are no record: the lowest priority, head ''. rank(record): the priority alone
--   leased(lease)                {token, started, own visibility | nil}; of what is no lease: '', 0, nil. int(x, other): a number, or `other`
--   holds(lease, token)          whether a value of P:l is of this token ("boot sequence")
--   finish(id, record, how)      the end. how = {state=3|4|5, reason, error, result, meta, progress,      '' or nil where there is none
--                                  tail = those five as frames instead, ends = when the status expires | ttl = after so many seconds
--                                  (neither: the record's ttl, or a day), lease = its value of P:l, token = what that `holds`,
--                                  nonce = eight bytes that name the exchange, so that it may be repeated, cause = of a part that
--                                  never began: why, encoded; it is no dead letter}.
--                                Writes status, dead letter (state 4), frees lock and bucket, adds to the outbox, wakes the waiters, and
--                                takes the id out of m, l, z, d and every rare hash at `flush`. An id that stands in a list stays there:
--                                who leases skips what is not in m. A part (P:t) keeps its tombstone for two minutes.
--   release(id)                  its place in a bucket, if any, goes to the outbox ("free")
--   again(id, record, how)       waits once more: how = {due = seconds | nil, head = true: before all others, keep = true: its bucket stays}
--   replace(id, record, how)     as again, under this new record; how.reason, how.error: why; how.note false: what was noted is void
--   ready(id, priority, head)    into the list of its priority
--   add_entry(kind, id, what, state, reason, error, result)     an entry of the outbox
--   new_entries()                      {number, entry, ...} of this script, for its answer
--   leave_token()                      leave a wake-up token for an idle worker, if none lies there
--   more(least)                  whether a list of this priority (nil: 0) or above holds something
--   notify(channel)                wake all who listen there
--   ended(id)                    the status of P:s:<id>, nil where there is none that can be read: {state, ends, finished, started, redeliveries, nonce, token, begun, head, reason, ...}
--   known(id)                    whether it lives or has a tombstone
--   new_place()                  a place in the lists of tasks, behind all others: microseconds of the clock
--   list_new(places)             {place, id, ...} live from now on, in P:qa. `finish` moves them to P:q3, P:q4, P:q5 by their state, `revive`
--                                back; P:qr are those that live and had an attempt. A place is a task's own as long as it is known
--   count_enqueued(names)        {name -> how many} new tasks, in the counts of this minute
--   name_in(body, at)            of an encoded envelope that begins behind `at` bytes: its name, nil where it is none
--   add_end_notice(id, record, state, reason, error)      it ends in no worker's hands: one of them is to report it (`take_end_notices`)
--   holder(key, id)              whose task keeps `id` from the unique lock of this key: nil where nobody does. A lock is worth what its holder
--                                is: one that has ended or is ended_ids, or waits past its expiry (it will never run), keeps nobody out
--   vacate(key, id)              before `id` takes it: the expired holder, if there is one, ends as `cancelled`, `expired`, so that no worker
--                                whose clock is slow runs it beside the new one
--   revive(id, r, record, life, nonce)   it runs again: `record`, parsed `r`, takes its lock for `life` seconds (nil: without end) and stands in
--                                line as one that arrives now, in place of its status and its dead letter; `nonce` is kept beside it
--   flush()
--   allow_at_maxmemory()                      at maxmemory Redis refuses a script whose first write may grow; this writes nothing, yet counts as one. Called
--                                first by scripts that carry tasks on and thereby off, not by those that bring new ones
if redis.replicate_commands then redis.replicate_commands() end

local call, sub, byte = redis.call, string.sub, string.byte
local P = KEYS[1]
local M, L, Z, D = P .. ':m', P .. ':l', P .. ':z', P .. ':d'
local DAY, TOMBSTONE, PART = 86400, 60, 120
local COUNTS_LIFE = DAY + 3600
local RARE = { 'c', 'k', 'v', 'f', 'n', 'p', 'y', 'b', 'w', 't', 'o', 'h', 'e' }
local QA, QR = P .. ':qa', P .. ':qr'
local STATUS = '<BdddI2c8'
local ENDED = STATUS .. 'I4c0I4c0I4c0'
local NONE = string.rep('\0', 8)

local time = call('TIME')
local NOW = tonumber(time[1]) + tonumber(time[2]) / 1e6

local function allow_at_maxmemory() call('PERSIST', P) end

local function number(x) return string.format('%.17g', x) end

-- What is stored may be damaged: one value that cannot be read must stop nobody else.
local function int(x, other)
  local n = tonumber(x or '')
  return n and n == n and n or other or 0
end

local function frame(s)
  s = s or ''
  return struct.pack('<I4c0', #s, s)
end

local function unframe(s, n, at)
  local found = { at = at or 1 }
  for i = 1, n do
    found[i], found.at = struct.unpack('<I4c0', s, found.at)
  end
  return found
end

local function slices(list, f)
  for first = 1, #list, 1000 do
    f(first, math.min(first + 999, #list))
  end
end

local function write(command, key, list)
  for first = 1, #list, 1000 do call(command, key, unpack(list, first, math.min(first + 999, #list))) end
end

-- -- rare hashes: most scripts meet none of them, and one look says so --------------------------------------------------------------------

local seen

local function has(name)
  if not seen then
    local keys = {}
    for i = 1, #RARE do keys[i] = P .. ':' .. RARE[i] end
    keys[#keys + 1] = QR
    seen = call('EXISTS', unpack(keys)) == 0 and { none = true } or {}
  end
  if seen[name] == nil then
    seen[name] = not seen.none and call('EXISTS', P .. ':' .. name) == 1
  end
  return seen[name]
end

local function get(name, id) return has(name) and call('HGET', P .. ':' .. name, id) end

local function put(name, id, value)
  has(name)
  call('HSET', P .. ':' .. name, id, value)
  seen[name] = true
end

local function drop(name, id)
  if has(name) then call('HDEL', P .. ':' .. name, id) end
end

-- -- records ----------------------------------------------------------------------------------------------------------------------------------

local function rank(record)
  local priority = record and byte(record, 2)
  return priority and priority <= 9 and priority or 0
end

local function within(x, most) return x and x >= 0 and x <= most and x or nil end

local function fields(record)
  local flags, priority = byte(record, 1, 2)
  local r, at = { priority = rank(record) }, 3
  if flags % 16 > 0 then
    if flags % 2 >= 1 then r.visibility, at = struct.unpack('<d', record, at) end
    if flags % 4 >= 2 then r.ttl, at = struct.unpack('<d', record, at) end
    if flags % 8 >= 4 then r.due, at = struct.unpack('<d', record, at) end
    if flags % 16 >= 8 then r.starts_in, at = struct.unpack('<d', record, at) end
  end
  if flags % 32 >= 16 then r.lock, at = struct.unpack('<I2c0', record, at) end
  if flags >= 32 then
    r.head, at = struct.unpack('<I4c0', record, at)
  else
    local start, length
    start, length, at = struct.unpack('<I2I4', record, at)
    r.head = sub(record, at, at + start - 1) .. '\128' .. sub(record, at + start + length)
  end
  r.at = at -- where the envelope begins; most scripts have no use for a copy
  r.visibility, r.ttl = within(r.visibility, 1e11), within(r.ttl, math.huge)
  r.due, r.starts_in = within(r.due, 1e15), within(r.starts_in, 1e15)
  return r
end

local function parse(record)
  local sound, r = pcall(fields, record)
  return sound and r or { priority = rank(record), head = '', at = 1 }
end

local function leased(lease)
  local boot, sequence, started, own = string.match(lease or '', '^(%S+) (%S+) (%S+) ?(%S*)$')
  if not boot then return '', 0 end
  return boot .. ' ' .. sequence, int(started), within(tonumber(own), 1e11)
end

local function holds(lease, token) -- without a string of its own: it is asked of every task that ends
  return lease and byte(lease, #token + 1) == 32 and string.find(lease, token, 1, true) == 1
end

-- -- lists and counts for those who look after the queue ---------------------------------------------------------------------------------------

local new_places = 0

local function new_place()
  new_places = new_places + 1
  return math.floor(NOW * 1e6 + 0.5) + new_places - 1
end

local function list_new(places) write('ZADD', QA, places) end

local function name_in(body, at)
  local sound, _, one, _, two, name = pcall(cmsgpack.unpack_limit, body, 4, at + (byte(body, at + 1) == 222 and 3 or 1))
  if sound and one == 'id' and two == 'name' then return name end
  local whole
  sound, whole = pcall(cmsgpack.unpack, sub(body, at + 1))
  return sound and type(whole) == 'table' and whole.name or nil
end

local function count_enqueued(names)
  local key = P .. ':qc:' .. string.format('%.0f', math.floor(NOW / 60))
  for name, n in pairs(names) do -- a field that is new: the key may be, too
    if redis.pcall('HINCRBY', key, 'enqueued ' .. name, n) == n then call('EXPIRE', key, COUNTS_LIFE) end
  end
end

-- -- outbox, wake-ups -------------------------------------------------------------------------------------------------------------------------

local entries = {}

local function add_entry(kind, id, what, state, reason, error, result)
  local entry = frame(kind) .. frame(id) .. frame(what) .. frame(state and tostring(state)) .. frame(reason) .. frame(error) .. frame(result)
  local n = redis.pcall('INCR', P .. ':on')
  if type(n) ~= 'number' or n == 1 then -- from the clock on: a counter that has expired names nothing twice
    n = math.floor(NOW * 1e6)
    call('SET', P .. ':on', string.format('%.0f', n))
  end
  n = string.format('%.0f', n)
  call('HSET', P .. ':out', n, entry)
  entries[#entries + 1] = n
  entries[#entries + 1] = entry
end

local function new_entries() return entries end

local function release(id)
  local bucket = get('b', id)
  if bucket then
    add_entry('free', id, bucket)
    drop('b', id)
  end
end

local function lists(least)
  local keys = {}
  for priority = least or 0, 9 do keys[#keys + 1] = P .. ':r' .. priority end
  return keys
end

local function more(least) return call('EXISTS', unpack(lists(least))) > 0 end

local function leave_token()
  if redis.pcall('LLEN', P .. ':g') == 0 then
    call('RPUSH', P .. ':g', 1)
    call('EXPIRE', P .. ':g', DAY) -- nobody sleeps through a day: who comes later looks before it does
  end
end

local function notify(channel) redis.pcall('PUBLISH', channel, 1) end -- what was written counts, whether or not anybody may be woken

local function wake_waiters(id)
  local waiting = get('e', id)
  if waiting then
    for token in string.gmatch(waiting, '%S+') do
      call('RPUSH', P .. ':e:' .. token, 1)
      call('PEXPIRE', P .. ':e:' .. token, 60000)
    end
    drop('e', id)
  end
end

-- -- the end ------------------------------------------------------------------------------------------------------------------------------------

local ended_ids = {}
local listed = {} -- id -> the state that it is listed under; not where nobody is shown it any more
local unleased_ids = {} -- leases that are over, of tasks that are not

local function tail_of(id, how)
  local note, progress = get('n', id), get('p', id)
  if how.tail and not note and not progress then return how.tail, nil end
  local t = how.tail and unframe(how.tail, 5) or { how.reason or '', how.error or '', how.result or '', how.meta or '', how.progress or '' }
  if t[4] == '' then t[4] = note or '' end
  if t[5] == '' then t[5] = progress or '' end
  return frame(t[1]) .. frame(t[2]) .. frame(t[3]) .. frame(t[4]) .. frame(t[5]), t
end

local PLAIN = { head = '-', at = 9 }

-- Most tasks that end have nothing in a rare hash and no option in their record: this is the hot path of a worker.
local function finish(id, record, how)
  local rare = has('c') or not seen.none
  local r = byte(record) == 0 and #record >= 8 and PLAIN or parse(record) -- whose head, a copy of the envelope, nobody asks for here
  local ends = how.ends or NOW + (how.ttl or r.ttl or DAY)
  if rare and get('f', id) then ends = NOW end
  local token, started = how.token, nil
  if token then
    started = int(string.match(how.lease, '^%S+', #token + 2))
  else
    token, started = leased(how.lease)
  end
  local begun, then_ = rare and get('o', id) or '', rare and get('t', id)
  local whole = r.head ~= '' and sub(record, r.at) or ''
  token = token .. (then_ and ' part' or ' task') -- which says, too, that the envelope is whole
  local tail, t = how.tail, nil
  if rare or not tail then tail, t = tail_of(id, how) end
  local times = rare and int(get('c', id)) or 0
  local status = struct.pack(ENDED, how.state, ends, NOW, started, times, how.nonce or NONE, #token, token, #begun, begun, #whole, whole)
  local kept = math.min(math.max(ends, NOW + (then_ and PART or TOMBSTONE)), 1e11)
  call('SET', P .. ':s:' .. id, status .. tail, 'PXAT', math.floor(kept * 1000))
  if how.state == 4 or then_ then t = t or unframe(tail, 5) end
  if how.state == 4 and not how.cause then
    call('HSET', P .. ':x', id, struct.pack('<d', NOW) .. frame(t[1] == '' and 'failed' or t[1]) .. frame(t[2]) .. frame(t[4])
      .. frame(begun) .. frame(record))
    call('ZADD', P .. ':xd', number(NOW), id)
  end
  if how.cause then
    add_entry('skip', id, then_, how.state, t[1], how.cause)
  elseif then_ then
    add_entry('end', id, then_, how.state, t[1], t[2], t[3])
  end
  if r.lock and call('GET', P .. ':u:' .. r.lock) == id then call('DEL', P .. ':u:' .. r.lock) end
  if rare then
    release(id)
    wake_waiters(id)
  end
  if ends > NOW then listed[id] = how.state end
  ended_ids[#ended_ids + 1] = id
end

-- -- once more -----------------------------------------------------------------------------------------------------------------------------------

local function ready(id, priority, head) call(head and 'LPUSH' or 'RPUSH', P .. ':r' .. priority, id) end

local function wait(id, priority, how)
  if not how.keep then release(id) end
  drop('k', id)
  if how.due and how.due > NOW then
    local first = call('ZRANGE', D, 0, 0, 'WITHSCORES')
    call('ZADD', D, number(how.due), id)
    if not first[2] or how.due < tonumber(first[2]) then leave_token() end
  else
    ready(id, priority, how.head)
    leave_token()
  end
  unleased_ids[#unleased_ids + 1] = id
end

local function again(id, record, how) wait(id, rank(record), how or {}) end

local function replace(id, record, how)
  call('HSET', M, id, record)
  if how.note == false then drop('n', id) end
  drop('o', id) -- the successor says what had been laid over the record
  if how.reason then put('y', id, frame(how.reason) .. frame(how.error)) else drop('y', id) end
  wait(id, rank(record), how)
end

local function status_in(status)
  local s, at = {}, nil
  s.state, s.ends, s.finished, s.started, s.redeliveries, s.nonce, at = struct.unpack(STATUS, status)
  for _, name in ipairs({ 'token', 'begun', 'head', 'reason', 'error', 'result', 'meta', 'progress' }) do
    s[name], at = struct.unpack('<I4c0', status, at)
  end
  s.token = string.match(s.token, '^(.*) %a+$') or s.token
  return s
end

local function ended(id)
  local status = call('GET', P .. ':s:' .. id)
  local sound, s = pcall(status_in, status or '')
  return sound and s or nil
end

local function add_end_notice(id, record, state, reason, error)
  call('RPUSH', P .. ':a', struct.pack('<d', NOW) .. 'S' .. frame(id) .. frame(tostring(state)) .. frame(reason) .. frame(error)
    .. frame(parse(record).head))
  call('LTRIM', P .. ':a', -10000, -1)
  call('EXPIRE', P .. ':a', 60) -- older ones are reported by nobody
end

local function expired(id, record)
  local sound, head = pcall(cmsgpack.unpack, parse(record).head) -- what cannot be decoded is for a worker to find, and soon: it is ready
  local expires = sound and type(head) == 'table' and tonumber(head.expires)
  return expires and NOW >= expires and call('HEXISTS', L, id) == 0
end

local function holder(key, id)
  local held_by = call('GET', P .. ':u:' .. key)
  if not held_by or held_by == id then return nil end
  local record = call('HGET', M, held_by)
  if not record or expired(held_by, record) then return nil end
  return held_by
end

local function vacate(key, id)
  local held_by = call('GET', P .. ':u:' .. key)
  local record = held_by and held_by ~= id and call('HGET', M, held_by)
  if record and expired(held_by, record) then
    add_end_notice(held_by, record, 5, 'expired')
    finish(held_by, record, { state = 5, reason = 'expired' })
  end
end

local function list_again(id)
  local place = call('ZSCORE', QA, id)
  for state = 3, 5 do
    place = call('ZSCORE', P .. ':q' .. state, id) or place
    call('ZREM', P .. ':q' .. state, id)
  end
  call('ZADD', QA, place or new_place(), id)
end

local function revive(id, r, record, life, nonce)
  local lock = r.lock and P .. ':u:' .. r.lock
  if lock then vacate(r.lock, id) end
  if lock and life then
    call('SET', lock, id, 'PX', math.max(1, math.ceil(life * 1000)))
  elseif lock then
    call('SET', lock, id)
  end
  call('DEL', P .. ':s:' .. id)
  call('HSET', M, id, record)
  list_again(id)
  put('h', id, nonce)
  if r.due and r.due > NOW then call('ZADD', D, number(r.due), id) else ready(id, r.priority) end
  call('HDEL', P .. ':x', id)
  call('ZREM', P .. ':xd', id)
end

local function known(id) return call('HEXISTS', M, id) == 1 or call('EXISTS', P .. ':s:' .. id) == 1 end

local function list_ended(first, last)
  local places = call('ZMSCORE', QA, unpack(ended_ids, first, last))
  local lists = { [3] = {}, [4] = {}, [5] = {} }
  for k, place in ipairs(places) do
    local id = ended_ids[first + k - 1]
    local list = lists[listed[id]]
    if list then
      list[#list + 1] = place or new_place() -- an older producer has listed it nowhere
      list[#list + 1] = id
    end
  end
  for state, list in pairs(lists) do
    if #list > 0 then call('ZADD', P .. ':q' .. state, unpack(list)) end
  end
  call('ZREM', QA, unpack(ended_ids, first, last))
  if has('qr') then call('ZREM', QR, unpack(ended_ids, first, last)) end
end

local function flush()
  slices(unleased_ids, function(first, last)
    call('HDEL', L, unpack(unleased_ids, first, last))
    call('ZREM', Z, unpack(unleased_ids, first, last))
  end)
  slices(ended_ids, function(first, last)
    call('HDEL', L, unpack(ended_ids, first, last))
    call('ZREM', Z, unpack(ended_ids, first, last))
    call('ZREM', D, unpack(ended_ids, first, last))
    list_ended(first, last)
    for _, name in ipairs(RARE) do
      if has(name) then call('HDEL', P .. ':' .. name, unpack(ended_ids, first, last)) end
    end
    call('HDEL', M, unpack(ended_ids, first, last))
  end)
  unleased_ids, ended_ids, listed = {}, {}, {}
end
