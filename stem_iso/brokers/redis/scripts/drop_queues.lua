-- KEYS[1] the registry · ARGV names of queues -> how many were dropped: those that nobody has come to use since they were found stale
local dropped = 0
for _, name in ipairs(ARGV) do
  local till = call('ZSCORE', KEYS[1], name)
  if till and tonumber(till) <= NOW then
    dropped = dropped + call('ZREM', KEYS[1], name)
  end
end
return dropped
