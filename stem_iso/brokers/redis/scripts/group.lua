-- KEYS[1] the own slot of a group · ARGV[1] what is to be done with it, then its arguments
--
--   place   claimed size most wanted whole canvas queue keep then error cause     -> 1 it is here, -1 too late
--   count   place · result, or '' cause error     a member has ended              -> what it moves
--   start   previous                              one without members begins      -> what it moves
--   skip    cause error                           it never will                   -> what it moves
--   revoke  cause                                                                 -> what it moves
--   forget                                                                        -> 1 if there was something to forget
--   close   what it moved is in its place: from now on it expires                 -> 1
--
-- What it moves: {} nothing, else {then, cause or '', result, reason, error, whole}. The message that ended a group is remembered (`by`) and
-- answered so each time: whoever brings it once more completes what another one left undone.
--
-- P:j the record: size missing bytes most wanted whole canvas queue keep then error cause enqueued, and once it has ended by state reason
-- result finished until · P:jc a bit for each place that is counted · P:jr place -> result. `error` and `cause` are those of results that
-- are too large, until it ends.
local P, verb = KEYS[1], ARGV[1]
local J = P .. ':j'
local now = clock()

local function ring()
  local tokens = redis.call('HVALS', P .. ':e')
  redis.call('DEL', P .. ':e')
  for _, each in ipairs(tokens) do
    for token in string.gmatch(each, '%S+') do
      redis.call('RPUSH', P .. ':e:' .. token, 1)
      redis.call('PEXPIRE', P .. ':e:' .. token, 60000)
    end
  end
end

local function moved()
  local f = redis.call('HMGET', J, 'then', 'cause', 'result', 'reason', 'error', 'whole')
  for i = 1, 6 do
    f[i] = f[i] or ''
  end
  return f
end

local function finish(by, state, reason, result, cause, error)
  local f = redis.call('HMGET', J, 'keep', 'forgotten')
  redis.call('HSET', J, 'by', by, 'state', state, 'finished', now, 'until', f[2] and now or now + tonumber(f[1]))
  redis.call('HDEL', J, 'error', 'cause', 'bytes')
  for name, value in pairs({ reason = reason, result = result, cause = cause, error = error }) do
    redis.call('HSET', J, name, value)
  end
  redis.call('DEL', P .. ':jr')
  ring()
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
    for _, result in ipairs(redis.call('HMGET', P .. ':jr', unpack(places))) do
      found[#found + 1] = result
    end
  end
  return table.concat(found)
end

local function complete(by)
  local f = redis.call('HMGET', J, 'size', 'most', 'bytes', 'wanted', 'error', 'cause')
  if tonumber(f[3]) <= tonumber(f[2]) then
    return finish(by, 'succeeded', nil, gathered(tonumber(f[1])))
  elseif f[4] == '1' then
    return finish(by, 'failed', 'results-too-large', nil, f[6], f[5])
  end
  return finish(by, 'succeeded')
end

if verb == 'place' then
  if redis.call('EXISTS', J) == 1 then
    return 1
  elseif now > tonumber(ARGV[2]) + 60 then
    return -1
  end
  redis.call('HSET', J, 'missing', ARGV[3], 'bytes', 0, 'enqueued', now)
  for i, name in ipairs({ 'size', 'most', 'wanted', 'whole', 'canvas', 'queue', 'keep', 'then', 'error', 'cause' }) do
    redis.call('HSET', J, name, ARGV[i + 2])
  end
  return 1
end

local f = redis.call('HMGET', J, 'size', 'state', 'by', 'closed', 'forgotten', 'until')
if not f[1] then
  return verb == 'forget' and 0 or verb == 'close' and 1 or {}
end

if verb == 'forget' then
  if f[5] or (f[6] and tonumber(f[6]) <= now) then
    return 0
  end
  redis.call('HSET', J, 'forgotten', 1)
  if f[2] then
    redis.call('HSET', J, 'until', now)
  end
  if f[4] then
    redis.call('HDEL', J, 'result')
  end
  return 1
end

if verb == 'close' then
  if f[2] and not f[4] then
    local keep = math.max(120, tonumber(redis.call('HGET', J, 'keep')))
    redis.call('HSET', J, 'closed', 1)
    if f[5] then
      redis.call('HDEL', J, 'result')
    end
    redis.call('PEXPIRE', J, math.ceil(keep * 1000))
    redis.call('PEXPIRE', P .. ':jc', math.ceil(keep * 1000))
    redis.call('PEXPIRE', P .. ':tree', math.ceil(keep * 1000))
  end
  return 1
end

local by = verb == 'count' and ARGV[2] or verb
local first = verb == 'count' and redis.call('SETBIT', P .. ':jc', ARGV[2], 1) == 0
local missing = first and redis.call('HINCRBY', J, 'missing', -1)
if f[2] then
  if first then
    ring() -- those who wait for members go on to wait for the others
  end
  return f[3] == by and moved() or {}
elseif verb == 'start' then
  return finish(by, 'succeeded', nil, ARGV[2])
elseif verb == 'skip' then
  return finish(by, 'failed', 'link-failed', nil, ARGV[2], ARGV[3])
elseif verb == 'revoke' then
  return finish(by, 'cancelled', 'revoked', nil, ARGV[2])
elseif not first then
  return {}
elseif #ARGV > 3 then
  return finish(by, 'failed', 'member-failed', nil, ARGV[4], ARGV[5])
end

local bytes = redis.call('HINCRBY', J, 'bytes', #ARGV[3])
if bytes <= tonumber(redis.call('HGET', J, 'most')) then
  redis.call('HSET', P .. ':jr', ARGV[2], ARGV[3])
else
  redis.call('DEL', P .. ':jr') -- nobody will see a list of them
end
if missing == 0 then
  return complete(by)
end
ring()
return {}
