-- KEYS[1] the schedules · ARGV[1] what is to be done, ARGV[2] the name of one, ARGV[3] the channel that wakes workers:
--   put, name, channel, revision, due, owner, body   -> 0 | 1   it is new, or another revision: planned anew; a pause and the last firing stay
--   remove, name, channel                            -> 0 | 1
--   pause, name, channel                             -> 0 | 1
--   resume, name, channel, due                       -> 0 | 1   goes on from `due` if it was paused
--   fire, name, channel, revision, due, next, sent   -> 0 | 1   it was as it was read, and is due at `next` now; sent = 1: it fires now
--
-- P:s HASH name -> frames: revision, due, owner, paused 0|1, fired ('' never), body. Times are text of a double.
local verb, name, channel = ARGV[1], ARGV[2], ARGV[3]
local S = P .. ':s'
if verb == 'remove' then
  return call('HDEL', S, name)
end
local stored = call('HGET', S, name)
local sound, known = pcall(unframe, stored or '', 6)
if not sound then known = nil end -- damaged: put anew, it is as one that was not there
local function store(revision, due, owner, paused, fired, body)
  call('HSET', S, name, frame(revision) .. frame(due) .. frame(owner) .. frame(paused) .. frame(fired) .. frame(body))
end
if verb == 'put' then
  local revision, due, owner, body = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
  if known and known[1] == revision then
    store(revision, known[2], owner, known[4], known[5], known[6])
    return 0
  end
  store(revision, due, owner, known and known[4] or '0', known and known[5] or '', body)
  notify(channel)
  return 1
end
if not known then
  return 0
end
local revision, due, owner, paused, fired, body = unpack(known, 1, 6)
if verb == 'pause' then
  store(revision, due, owner, '1', fired, body)
elseif verb == 'resume' then
  store(revision, paused == '1' and ARGV[4] or due, owner, '0', fired, body)
  notify(channel)
else
  if paused == '1' or revision ~= ARGV[4] or tonumber(due) ~= tonumber(ARGV[5]) then
    return 0
  end
  store(revision, ARGV[6], owner, '0', ARGV[7] == '1' and number(NOW) or fired, body)
end
return 1
