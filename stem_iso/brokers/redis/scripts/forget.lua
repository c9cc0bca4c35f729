-- KEYS[1] a queue · ARGV[1] 1: they are parts of a canvas, then ids -> how many of them were known
--
-- Of a part that has ended, the status stays as a tombstone that nobody is shown: a relay that comes late must not place it once more. One
-- that is forgotten alone is known by the root that its envelope names.
allow_at_maxmemory()
local ROOT = '\167root_id' -- a name in msgpack
local found = 0
for i = 2, #ARGV do
  local key = P .. ':s:' .. ARGV[i]
  if call('HEXISTS', M, ARGV[i]) == 1 then
    if ARGV[1] ~= '1' or get('t', ARGV[i]) then -- else replayed: a part of nothing any more
      put('f', ARGV[i], 1)
      found = found + 1
    end
  else
    local status = call('GET', key)
    local state, ends = 4, status and math.huge or 0 -- of one that is damaged
    if status and #status >= 9 then state, ends = struct.unpack('<Bd', status) end
    if ends > NOW then
      found = found + 1
      if ARGV[1] == '1' or string.find(status, ROOT, 1, true) then
        local kept = math.max(1, math.min(call('PTTL', key), PART * 1000))
        call('SET', key, struct.pack('<Bd', state, NOW) .. sub(status, 10), 'PX', kept)
      else
        call('DEL', key)
        for listed = 3, 5 do call('ZREM', P .. ':q' .. listed, ARGV[i]) end
      end
    end
  end
end
return found
