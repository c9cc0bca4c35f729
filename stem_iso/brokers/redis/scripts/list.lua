-- KEYS[1] a queue · ARGV[1] 1: newest first, 0: oldest first · [2] place, [3] id behind which it begins, '' both: at the end of the order
-- [4] the lowest place, [5] the highest · [6] how many are looked at, at most · [7] the lists: 'a', and 3, 4, 5, as "a345"
-- [8] of those alive: the sum of what is wanted (1 queued, 2 delayed, 4 running, 8 retried) · [9] 1: with the name, 2: and when it was enqueued
-- -> { place, id } of how far it has looked, {} at the end; then place, id, name, enqueued of each that is there ('' where not asked for)
--
-- One look at one stretch of the order, all lists at once: a task that ends between two looks is in one of them. What is answered may be
-- stale; whoever shows it looks it up. A short list has no highest place: what was enqueued long before it came is found there. Of those
-- alive, few are found where they stand (leases, delays), many along the order.
local FEW, MOST_BYTES, HEAD, SHORT = 3000, 524288, 4096, 1000
local newest, place, id, low, high = ARGV[1] == '1', ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local most, wanted, details = tonumber(ARGV[6]), tonumber(ARGV[8]), tonumber(ARGV[9])

local function wants(bit) return wanted % (2 * bit) >= bit end

-- As bytes, which is how the server sorts; the operator `<` goes by its locale.
local function before(one, other)
  for i = 1, math.min(#one, #other) do
    local x, y = byte(one, i), byte(other, i)
    if x ~= y then return x < y end
  end
  return #one < #other
end

local function precedes(one, other)
  if one[1] ~= other[1] then return (one[1] < other[1]) ~= newest end
  return one[2] ~= other[2] and before(one[2], other[2]) ~= newest
end

-- -- a stretch of one list, in the order of the look ------------------------------------------------------------------------------------------

-- How many of the list stand before (place, id); with `itself`, that one too.
local function rank_in(key, itself)
  local from = call('ZCOUNT', key, '-inf', '(' .. place)
  local to = from + call('ZCOUNT', key, place, place)
  while from < to do
    local middle = math.floor((from + to) / 2)
    local there = call('ZRANGE', key, middle, middle)[1]
    if before(there, id) or (itself and there == id) then from = middle + 1 else to = middle end
  end
  return from
end

local function stretch(key)
  local high = call('ZCARD', key) > SHORT and high or '+inf'
  local from, to = call('ZCOUNT', key, '-inf', '(' .. low), call('ZCOUNT', key, '-inf', high) - 1
  if id ~= '' then
    if newest then to = math.min(to, rank_in(key) - 1) else from = math.max(from, rank_in(key, true)) end
  end
  if newest then from = math.max(from, to - most + 1) else to = math.min(to, from + most - 1) end
  local found = {}
  if from > to then return found end
  local raw = call('ZRANGE', key, from, to, 'WITHSCORES')
  for i = 1, #raw, 2 do
    local at = newest and (#raw - i + 1) / 2 or (i + 1) / 2
    found[at] = { tonumber(raw[i + 1]), raw[i] }
  end
  return found
end

-- -- those alive -----------------------------------------------------------------------------------------------------------------------------------

-- The first of these in the order of the look. They are many, so their places are sorted as numbers, and only the first ones with their ids.
local function placed(ids)
  local least, behind = tonumber(low), id ~= '' and { tonumber(place), id }
  local scores, all = {}, {}
  slices(ids, function(first, last)
    for k, score in ipairs(call('ZMSCORE', QA, unpack(ids, first, last))) do
      score = tonumber(score or '')
      if score and score >= least and not (behind and (newest and score > behind[1] or not newest and score < behind[1])) then
        scores[first + k - 1] = score
        all[#all + 1] = score
      end
    end
  end)
  table.sort(all)
  local last = #all > most and all[newest and #all - most + 1 or most]
  local found, met = {}, {}
  for k, score in pairs(scores) do
    local each = { score, ids[k] }
    if not (last and (newest and score < last or not newest and score > last)) and not met[ids[k]]
      and not (behind and not precedes(behind, each)) then
      met[ids[k]] = true
      found[#found + 1] = each
    end
  end
  table.sort(found, precedes)
  for i = #found, most + 1, -1 do found[i] = nil end
  return found
end

local function lines()
  local sizes, keys = 0, {}
  local function line(key, size)
    sizes = sizes + size
    keys[#keys + 1] = key
  end
  if wants(1) or wants(2) then line('d', call('ZCARD', D)) end
  if wants(4) then line('l', call('HLEN', L)) end
  if wants(8) then line('qr', call('ZCARD', QR)) end
  if wants(1) then
    line('w', call('HLEN', P .. ':w'))
    for priority = 0, 9 do line('r' .. priority, call('LLEN', P .. ':r' .. priority)) end
  end
  return sizes, keys
end

-- nil where they are many.
local function few()
  local size, keys = lines()
  if size > FEW then return nil end
  local ids = {}
  for _, key in ipairs(keys) do
    local found
    if key == 'l' or key == 'w' then
      found = call('HKEYS', P .. ':' .. key)
    else
      found = call((key == 'd' or key == 'qr') and 'ZRANGE' or 'LRANGE', P .. ':' .. key, 0, -1)
    end
    for _, each in ipairs(found) do ids[#ids + 1] = each end
  end
  return placed(ids)
end

local function alive()
  if wanted == 15 then return stretch(QA) end
  return few() or stretch(wanted == 8 and QR or QA)
end

-- Which of these are in a state that is wanted.
local function chosen(ids)
  local found = {}
  if #ids == 0 then return found end
  local leases, dues = call('HMGET', L, unpack(ids)), call('ZMSCORE', D, unpack(ids))
  local retried = wants(8) and call('ZMSCORE', QR, unpack(ids)) or {}
  for k, each in ipairs(ids) do
    local due = tonumber(dues[k] or '')
    if leases[k] then
      found[each] = wants(4)
    else
      found[each] = (retried[k] and true) or wants(due and due > NOW and 2 or 1)
    end
  end
  return found
end

-- -- what is said of each ----------------------------------------------------------------------------------------------------------------------------

local read = 0

-- Of a status: where its envelope begins, how long it is, and how it began.
local function envelope_in(status)
  local _, begun, length, at = struct.unpack('<I4c0I4c0I4', status, struct.size(STATUS) + 1)
  return at, length, begun
end

-- A part of a canvas is enqueued when it begins.
local function began(begun)
  local sound, parts = pcall(cmsgpack.unpack, begun or '')
  return sound and type(parts) == 'table' and tonumber(parts[3])
end

-- Found by its bytes where they are there once; by decoding, where somebody's meta looks the same.
local function enqueued_in(body)
  local at = string.find(body, '\171enqueued_at\203', 1, true)
  if at and not string.find(body, '\171enqueued_at', at + 1, true) then return (struct.unpack('>d', body, at + 13)) end
  local sound, envelope = pcall(cmsgpack.unpack, body)
  return sound and type(envelope) == 'table' and tonumber(envelope.enqueued_at or '')
end

-- Name and time of one.
local function described(list, each)
  local body, begun
  if list == 'a' then
    body, begun = parse(call('HGET', M, each) or '').head, get('o', each)
  else
    local key = P .. ':s:' .. each
    local status = call('GETRANGE', key, 0, HEAD - 1)
    local sound, from, length, how = pcall(envelope_in, status)
    if not sound then return '', '' end
    if from + length - 1 > #status then status = call('GETRANGE', key, 0, from + length - 2) end
    body, begun = sub(status, from, from + length - 1), how
  end
  read = read + #body
  local sound, enqueued = true, nil
  if details == 2 then
    enqueued = began(begun)
    if not enqueued then sound, enqueued = pcall(enqueued_in, body) end
  end
  return tostring(name_in(body, 0) or ''), sound and enqueued and number(enqueued) or ''
end

-- -- the look ----------------------------------------------------------------------------------------------------------------------------------------

local names, lists = {}, {}
for name in string.gmatch(ARGV[7], '.') do
  names[#names + 1] = name
  lists[#lists + 1] = name == 'a' and alive() or stretch(P .. ':q' .. name)
end

local heads, looked, live = {}, {}, {}
for i = 1, #lists do heads[i] = 1 end
while #looked < most do
  local best
  for i, list in ipairs(lists) do
    local head = list[heads[i]]
    if head and (not best or precedes(head, lists[best][heads[best]])) then best = i end
  end
  if not best then break end
  local each = lists[best][heads[best]]
  heads[best] = heads[best] + 1
  looked[#looked + 1] = { each[1], each[2], names[best] }
  if names[best] == 'a' then live[#live + 1] = each[2] end
end

local here = wanted == 15 and {} or chosen(live)
local found, done = { false }, 0
for _, each in ipairs(looked) do
  if read > MOST_BYTES then break end
  done = done + 1
  if each[3] ~= 'a' or wanted == 15 or here[each[2]] then
    local name, enqueued = '', ''
    if details > 0 then name, enqueued = described(each[3], each[2]) end
    local n = #found
    found[n + 1], found[n + 2], found[n + 3], found[n + 4] = number(each[1]), each[2], name, enqueued
  end
end
local last = looked[done]
found[1] = (done < #looked or #looked == most) and { number(last[1]), last[2] } or {}
return found
