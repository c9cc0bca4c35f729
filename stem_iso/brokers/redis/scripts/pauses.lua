-- KEYS[1] the registry · ARGV[1] what is to be done, [2] "q<queue>" or "t<task>":
--   pause             -> 0 | 1             0: it was paused
--   resume            -> { 0 | 1, number | '' }   0: it was not paused; number: of a task, the opening of its line that is still to be seen through
--   opened, number    -> 0 | 1             the line of this opening is empty
--
-- P:p HASH what is paused -> number of the pause · P:po HASH tasks that were resumed -> number of the opening · P:pn the last number.
-- Numbers grow, over pauses and openings: a line obeys the highest that it has met.
allow_at_maxmemory()
local verb, name = ARGV[1], ARGV[2]
local paused, opening = P .. ':p', P .. ':po'

local function numbered()
  local last = int(call('GET', P .. ':pn'))
  local n = string.format('%.0f', last < 1e17 and math.max(NOW * 1e6, last + 1) or NOW * 1e6)
  call('SET', P .. ':pn', n)
  return n
end

if verb == 'opened' then
  return call('HGET', opening, name) == ARGV[3] and call('HDEL', opening, name) or 0
elseif verb == 'pause' then
  if call('HEXISTS', paused, name) == 1 then return 0 end
  call('HSET', paused, name, numbered())
  call('HDEL', opening, name)
  return 1
end
local was = call('HDEL', paused, name)
if was == 1 and sub(name, 1, 1) == 't' then call('HSET', opening, name, numbered()) end
return { was, call('HGET', opening, name) or '' }
