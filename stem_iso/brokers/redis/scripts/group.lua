-- KEYS[1] the own slot of a group · ARGV[1] what is to be done with it, then its arguments
--
--   place   claimed size most wanted whole canvas queue keep then error cause     -> 1 it is here, -1 too late
--   count   place · result, or '' cause error     a member has ended              -> what it moves
--   start   previous                              one without members begins      -> what it moves
--   skip    cause error                           it never will                   -> what it moves
--   revoke  cause                                                                 -> what it moves
--   forget                                                                        -> 1 if there was something to forget
--   close   what it moved is in its place: from now on it expires, and the tree   -> 1
--   read    -> {state or '', reason, error, result, enqueued, finished, missing, canvas, queue}; nil where it is unknown, or has expired
--
-- What it moves: {} nothing, else {then, cause or '', result, reason, error, whole}. The message that ended a group is remembered (`by`) and
-- answered so each time: whoever brings it once more completes what another one left undone.
--
-- P:j the record: size missing bytes most wanted whole canvas queue keep then error cause enqueued, and once it has ended by state reason
-- result finished until · P:jc a bit for each place that is counted · P:jr place -> result. `error` and `cause` are those of results that
-- are too large, until it ends.
allow_at_maxmemory()
local verb, J = ARGV[1], P .. ':j'

local function ring_all()
  local tokens = call('HVALS', P .. ':e')
  call('DEL', P .. ':e')
  for _, each in ipairs(tokens) do
    for token in string.gmatch(each, '%S+') do
      call('RPUSH', P .. ':e:' .. token, 1)
      call('PEXPIRE', P .. ':e:' .. token, 60000)
    end
  end
end

local function moved()
  local f = call('HMGET', J, 'then', 'cause', 'result', 'reason', 'error', 'whole')
  for i = 1, 6 do
    f[i] = f[i] or ''
  end
  return f
end

local function close_with(by, state, reason, result, cause, error)
  local f = call('HMGET', J, 'keep', 'forgotten')
  call('HSET', J, 'by', by, 'state', state, 'finished', NOW, 'until', f[2] and NOW or NOW + int(f[1], DAY))
  call('HDEL', J, 'error', 'cause', 'bytes')
  for name, value in pairs({ reason = reason, result = result, cause = cause, error = error }) do
    call('HSET', J, name, value)
  end
  call('DEL', P .. ':jr')
  ring_all()
  return moved()
end

local function array(size)
  if size < 16 then
    return string.char(0x90 + size)
  elseif size < 65536 then
    return string.char(0xdc) .. struct.pack('>I2', size)
  end
  return string.char(0xdd) .. struct.pack('>I4', size)
end

local function gathered(size)
  local found = { array(size) }
  for first = 0, size - 1, 1000 do
    local places = {}
    for place = first, math.min(size, first + 1000) - 1 do
      places[#places + 1] = place
    end
    for _, result in ipairs(call('HMGET', P .. ':jr', unpack(places))) do
      found[#found + 1] = result
    end
  end
  return table.concat(found)
end

local function complete(by)
  local f = call('HMGET', J, 'size', 'most', 'bytes', 'wanted', 'error', 'cause')
  if int(f[3]) <= int(f[2]) then
    return close_with(by, 'succeeded', nil, gathered(int(f[1])))
  elseif f[4] == '1' then
    return close_with(by, 'failed', 'results-too-large', nil, f[6], f[5])
  end
  return close_with(by, 'succeeded')
end

local function one_less(size)
  local missing = redis.pcall('HINCRBY', J, 'missing', -1)
  if type(missing) ~= 'number' then -- damaged: the bits know
    missing = size - call('BITCOUNT', P .. ':jc')
    call('HSET', J, 'missing', missing)
  end
  return missing
end

if verb == 'place' then
  if call('EXISTS', J) == 1 then
    return 1
  elseif NOW > tonumber(ARGV[2]) + 60 then
    return -1
  end
  call('HSET', J, 'missing', ARGV[3], 'bytes', 0, 'enqueued', NOW)
  for i, name in ipairs({ 'size', 'most', 'wanted', 'whole', 'canvas', 'queue', 'keep', 'then', 'error', 'cause' }) do
    call('HSET', J, name, ARGV[i + 2])
  end
  return 1
end

if verb == 'close' then
  local f = call('HMGET', J, 'keep', 'closed', 'forgotten')
  local keep = f[1] or call('HGET', P .. ':tree', 'keep')
  if keep and not f[2] then
    for _, key in ipairs({ ':j', ':jc', ':tree' }) do
      call('PEXPIRE', P .. key, math.ceil(int(keep, DAY) * 1000))
    end
    if f[1] then call('HSET', J, 'closed', 1) end
    if f[3] then call('HDEL', J, 'result') end
  end
  return 1
end

local f = call('HMGET', J, 'size', 'state', 'by', 'closed', 'forgotten', 'until')
local there = f[1] and not (f[6] and int(f[6]) <= NOW)

if verb == 'read' then
  if not there then return false end
  local seen = call('HMGET', J, 'state', 'reason', 'error', 'result', 'enqueued', 'finished', 'missing', 'canvas', 'queue')
  if not seen[1] then seen[3] = '' end
  for i = 1, 9 do
    seen[i] = seen[i] or ''
  end
  return seen
elseif verb == 'forget' then
  if not there or f[5] then return 0 end
  call('HSET', J, 'forgotten', 1)
  if f[2] then call('HSET', J, 'until', NOW) end
  if f[4] then call('HDEL', J, 'result') end
  return 1
elseif not f[1] then
  return {}
end

local by = verb == 'count' and ARGV[2] or verb
local first = verb == 'count' and call('SETBIT', P .. ':jc', ARGV[2], 1) == 0
local missing = first and one_less(int(f[1]))
if first and f[4] then -- of those who come late it may be the first: the key is then of now
  call('PEXPIRE', P .. ':jc', math.max(1, call('PTTL', J)))
end
if f[2] then
  if first then
    if f[4] then call('PEXPIRE', P .. ':jc', math.max(1, call('PTTL', J))) end
    ring_all() -- those who wait for members go on to wait for the others
  end
  return f[3] == by and moved() or {}
elseif verb == 'start' then
  return close_with(by, 'succeeded', nil, ARGV[2])
elseif verb == 'skip' then
  return close_with(by, 'failed', 'link-failed', nil, ARGV[2], ARGV[3])
elseif verb == 'revoke' then
  return close_with(by, 'cancelled', 'revoked', nil, ARGV[2])
elseif not first then
  return {}
elseif #ARGV > 3 then
  return close_with(by, 'failed', 'member-failed', nil, ARGV[4], ARGV[5])
end

local bytes = redis.pcall('HINCRBY', J, 'bytes', #ARGV[3])
if type(bytes) == 'number' and bytes <= int(call('HGET', J, 'most')) then
  call('HSET', P .. ':jr', ARGV[2], ARGV[3])
else
  call('DEL', P .. ':jr') -- nobody will see a list of them
end
if missing == 0 then
  return complete(by)
end
ring_all()
return {}
